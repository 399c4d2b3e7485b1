"""
What the guide offers for monitoring fits what is exported: of a number that does not exist a panel is empty, and
nobody is told.
"""

import json
import re
from pathlib import Path

import pytest

from durable.metrics import MEASURES

GUIDE = Path(__file__).parents[2] / "examples" / "guide"
PANELS = json.loads((GUIDE / "grafana.json").read_text(encoding="utf-8"))["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
ALERTS = re.findall(r"^\| [^|`]+ \| `([^`]+)` \|$", (GUIDE / "dashboard.md").read_text(encoding="utf-8"), re.MULTILINE)
#: Besides `MEASURES`: whether there is anything to tell.
LABELS = {"durable_up": (), "durable_engine_healthy": (), **{name: labels for name, (labels, _) in MEASURES.items()}}
#: Which target was scraped: Prometheus adds it to every sample.
SCRAPED = {"job"}


def used(query):
    """
    The names of numbers in a query, and of the labels by which it chooses or groups them.
    """
    chosen = {name for inside in re.findall(r"\{([^}]*)\}", query) for name in re.findall(r"(\w+)\s*[=!]", inside)}
    grouped = {name.strip() for inside in re.findall(r"\bby \(([^)]*)\)", query) for name in inside.split(",")}
    return set(re.findall(r"\bdurable_\w+", query)), (chosen | grouped) - SCRAPED


@pytest.mark.parametrize("query", [*QUERIES, *ALERTS])
def test_a_query_asks_for_what_is_exported(query):
    """
    Numbers that there are, by labels that they have; what only grows is asked for by its rate.
    """
    names, labels = used(query)
    assert names <= LABELS.keys()
    assert labels <= {label for name in names for label in LABELS[name]}
    assert all(re.search(rf"(rate|increase)\({name}", query) for name in names if name.endswith("_total"))


def test_every_number_is_on_the_grafana_dashboard():
    """
    What is shown nowhere is forgotten. Paused queues and open batches are left to the dashboard in the browser.
    """
    shown = {name for query in QUERIES for name in used(query)[0]}
    assert LABELS.keys() - shown == {"durable_queue_paused", "durable_batches_open"}
    assert len(ALERTS) == 3

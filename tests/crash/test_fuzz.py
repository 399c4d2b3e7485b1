"""
A fuzz of damaged cells and exports, some of each; `python tests/crash/fuzz.py --cells 10000 --exports 5000` for all.

Fault: one cell of a journal with open runs of every kind, or one line of an export, holds what nobody wrote.
What must hold: the file opens or is refused by an error of ours; then everybody else goes on, with right results.
"""

import asyncio
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fuzz


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """
    The journal that is damaged.
    """
    path = tmp_path_factory.mktemp("base") / "base.db"
    asyncio.run(fuzz.build(path))
    return path


def test_one_hostile_cell_harms_nobody_else(tmp_path):
    """
    Other cells than last time, as the numbers of rows are the same each time and the order is not.
    """
    verdicts = asyncio.run(fuzz.fuzz_cells(tmp_path, 30, seed=7))
    assert sum(map(len, verdicts.values())) == 30
    assert not {verdict: which for verdict, which in verdicts.items() if verdict.startswith("WRONG")}


def test_a_mutated_export_harms_nobody(tmp_path):
    """
    It is refused with the place, or imported.
    """
    verdicts = asyncio.run(fuzz.fuzz_exports(tmp_path, 30, seed=7))
    assert not {verdict: which for verdict, which in verdicts.items() if verdict.startswith("WRONG")}


def test_a_step_that_is_to_begin_while_it_is_running_blocks_its_run_alone(base, tmp_path):
    """
    An arrival that nobody sent says that it did not begin: the engine died of it.
    """
    lines = asyncio.run(fuzz.exported(base, tmp_path / "all.jsonl"))
    at = next(n for n, line in enumerate(lines) if b'"seed":"delayed"' in line)
    never = {"event": "StepNotBegun", "position": "0", "at": 1.0, "fields": {"attempt": 1}}
    path = tmp_path / "mutated.jsonl"
    path.write_bytes(b"".join([*lines[:at], json.dumps({"pending": never}).encode() + b"\n", *lines[at:]]))
    assert asyncio.run(fuzz.verdict_on_export(path)) == "imported"


#: Cells that were found by the fuzz: each stopped others, or kept the file from opening.
FOUND = [
    ("runs", "run_id = 'timed'", "attributes", "x"),
    ("runs", "run_id = 'timed'", "attributes", "[null, null, null]"),
    ("runs", "run_id = 'timed'", "labels", b"\xff"),
    ("runs", "run_id = 'delayed'", "workflow", b"\xff"),
    ("runs", "run_id = 'delayed'", "queue", b"\xff"),
    ("runs", "run_id = 'family~.0.0'", "workflow", b"\xff"),
    ("runs", "run_id = 'family~.0.1'", "run_id", b"\xff"),
    ("waits", "kind = 'timer' AND run = (SELECT run FROM durable_runs WHERE run_id = 'timed')", "grp", b"\xff"),
    (
        "waits",
        "kind = 'start' AND run = (SELECT run FROM durable_runs WHERE run_id = 'family~.0.0')",
        "wake_on",
        b"\xff",
    ),
    ("limits", "name = 'narrow'", "concurrency", -(2**63)),
    ("queues", "name = 'rated'", "changed", b"\xff"),
    ("meta", "name = 'commits'", "value", None),
    ("inbox", "item = (SELECT max(item) FROM durable_inbox)", "item", 2**63 - 1),
    ("schedules", "name = 'ticks'", "name", b"\xff"),
    ("waits", "kind = 'timer' AND run = (SELECT run FROM durable_runs WHERE run_id = 'timed')", "position", "x"),
    ("events", "run = (SELECT run FROM durable_runs WHERE run_id = 'ended') AND kind = 2", "value", float("inf")),
    ("events", "run = (SELECT run FROM durable_runs WHERE run_id = 'lining-up') AND seq = 2", "body", "x"),
]


@pytest.mark.parametrize("table, where, column, value", FOUND, ids=[f"{each[0]}-{each[2]}" for each in FOUND])
def test_what_was_found_once_stays_mended(base, tmp_path, table, where, column, value):
    """
    The file opens, and all others go on.
    """
    path = tmp_path / "damaged.db"
    path.write_bytes(base.read_bytes())
    assert fuzz.damage(path, fuzz.Cell(f"durable_{table}", where, column, value))
    assert asyncio.run(fuzz.verdict_on_file(path)) == "fine"


def test_the_judge_can_say_no(base, tmp_path):
    """
    An innocent run that is damaged itself, and a file that is none.
    """
    path = tmp_path / "damaged.db"
    path.write_bytes(base.read_bytes())
    innocent = "run = (SELECT run FROM durable_runs WHERE run_id = 'innocent-timed')"
    assert fuzz.damage(path, fuzz.Cell("durable_events", f"{innocent} AND seq = 3", "value", "8"))
    assert asyncio.run(fuzz.verdict_on_file(path)).startswith("WRONG: RunBlockedError")
    path.write_bytes(b"x" * 5_000)
    assert asyncio.run(fuzz.verdict_on_file(path)) == "refused: ForeignJournalError"

"""
A journal for Prometheus: numbers that are computed when they are asked for, from the file itself.

    from prometheus_client import REGISTRY
    from durable.metrics import collector

    REGISTRY.register(collector(engine))

It needs the extra `prometheus`. What there is to see, with its labels, is `MEASURES`: runs by workflow and status,
queues, limits, waits, schedules, the file. Labels are names that the application chose, never ids.

It reads the file with a connection of its own, in the thread that scrapes: an engine that is busy, or whose loop is
held up, is scraped all the same; so is a file that no process executes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as _error:
    _msg = "durable.metrics needs prometheus_client: pip install 'durable-asyncio[prometheus]'"
    raise ImportError(_msg) from _error

from durable._cli.journals.files import open_readonly
from durable._shell.engine.engine import Engine
from durable._shell.engine.service import Service, engine_of
from durable._shell.handles.journal import JournalHandle, backend_of
from durable._shell.reports.measures import MEASURES, Measure, measures
from durable._shell.storage.memory import MEMORY
from durable.errors import DurableError, UsageError

__all__ = ["MEASURES", "JournalCollector", "collector"]


def collector(shown: JournalHandle[Any] | str | os.PathLike[str]) -> JournalCollector:
    """
    What a Prometheus registry collects from.

    Args:
        shown: An `Engine`, a `Service` or a `Client`, or the path of a journal.

    Raises:
        UsageError: The journal is in memory: there is no file to read beside its engine.
    """
    return JournalCollector(shown)


class JournalCollector(Collector):
    """Collects the numbers of one journal: see `collector`."""

    def __init__(self, shown: JournalHandle[Any] | str | os.PathLike[str]) -> None:
        self._engine = shown if isinstance(shown, Engine | Service) else None
        self._path = shown.path if isinstance(shown, JournalHandle) else os.fspath(shown)
        if self._path == MEMORY:
            msg = "a journal in memory has no file that could be read beside its engine: ask engine.stats()"
            raise UsageError(msg)

    def describe(self) -> Iterable[Any]:
        """Nothing in advance: so that registering reads no file, which may not be there yet."""
        return ()

    def collect(self) -> Iterator[Any]:
        """
        The families of samples. A file that cannot be read gives `durable_up` 0, and nothing else.

        An engine or service tells besides whether it is healthy.
        """
        try:
            with closing(open_readonly(self._path)) as conn:
                conn.execute("BEGIN")
                found = measures(conn, time.time())
        except (DurableError, OSError):
            found = None
        yield GaugeMetricFamily("durable_up", "1 if the journal can be read.", value=float(found is not None))
        if self._engine is not None:
            healthy = self._engine.health().status == "healthy"
            yield GaugeMetricFamily("durable_engine_healthy", "1 if the engine here is healthy.", value=float(healthy))
            yield from _families(_of_engine(self._engine))
        yield from _families(found or [])


def _of_engine(engine: Engine | Service) -> list[Measure]:
    """What an engine counts while it is open; nothing where another process executes."""
    running = backend_of(engine_of(engine) if isinstance(engine, Service) else engine).running
    if running is None:
        return []
    commits = running.commits
    return [
        Measure("durable_engine_commits_total", (), commits.groups),
        Measure("durable_engine_writes_total", (), commits.writes),
        Measure("durable_engine_commit_seconds_total", (), commits.seconds),
    ]


def _families(found: list[Measure]) -> Iterator[Any]:
    by_name: dict[str, list[Measure]] = {}
    for each in found:
        by_name.setdefault(each.name, []).append(each)
    for name, samples in by_name.items():
        labels, said = MEASURES[name]
        family: Any = (CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily)(name, said, labels=labels)
        for each in samples:
            family.add_metric(each.labels, each.value)
        yield family

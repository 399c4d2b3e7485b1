"""
A journal as numbers for monitoring: what is there now, as samples with a name, labels and a value.

Labels are names that the application chose (workflows, queues, limits): never ids, of which there are as many as runs.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from durable._core.light_tuples import NamedTuple
from durable._shell.reads.schedule_rows import all_schedules
from durable._shell.reports.census import census

#: Name -> (names of its labels, what it says). Names are Prometheus's: base units, and `_total` where it only grows.
MEASURES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "durable_runs": (("workflow", "status"), "Runs in the journal."),
    "durable_oldest_open_run_seconds": ((), "Age of the oldest run that has not ended; 0 if there is none."),
    "durable_queue_waiting": (("queue",), "Runs that have not begun, and wait for a slot of the queue."),
    "durable_queue_running": (("queue",), "Runs of the queue that are active, or woken and about to be."),
    "durable_queue_oldest_wait_seconds": (("queue",), "How long the first of those that wait has waited."),
    "durable_queue_paused": (("queue",), "1 while the queue is paused."),
    "durable_limit_inside": (("limit",), "Attempts and runs that hold a slot of the limit, of all keys."),
    "durable_limit_waiting": (("limit",), "Attempts and runs that wait for one."),
    "durable_waits": (("kind",), "What freed runs wait for."),
    "durable_inbox": ((), "Signals and other arrivals that no turn has taken in yet."),
    "durable_batches_open": ((), "Batches that are not finished."),
    "durable_schedule_next_seconds": (("schedule",), "Seconds until the next tick; negative if it is late."),
    "durable_schedule_failed_total": (("schedule",), "Ticks whose run could not be started."),
    "durable_events_total": ((), "Events ever recorded."),
    "durable_file_bytes": ((), "Size of the journal's file."),
    "durable_file_free_bytes": ((), "Of it, what is free to be used again."),
    # Of an engine of the process that is scraped, while it is open:
    "durable_engine_commits_total": ((), "Commits since the engine was opened."),
    "durable_engine_writes_total": ((), "Turns and requests in these commits."),
    "durable_engine_commit_seconds_total": ((), "Seconds that these commits took."),
}


class Measure(NamedTuple):
    """One sample."""

    name: str
    #: Values, in the order of `MEASURES`.
    labels: tuple[str, ...]
    value: float


def measures(conn: sqlite3.Connection, now: float) -> list[Measure]:
    """All samples at *now*, of one moment. Of runs the open ones are counted for it, of events none."""
    counts = census(conn)
    oldest = counts.oldest_open
    found = [
        Measure("durable_runs", (workflow, status), count)
        for workflow, by_status in sorted(counts.workflows.items())
        for status, count in sorted(by_status.items())
    ]
    found.append(Measure("durable_oldest_open_run_seconds", (), 0.0 if oldest is None else now - oldest.created_at))
    for queue in counts.queues:
        waited = 0.0 if queue.oldest_ready_at is None else max(0.0, now - queue.oldest_ready_at)
        found += [
            Measure("durable_queue_waiting", (queue.name,), queue.depth),
            Measure("durable_queue_running", (queue.name,), queue.running),
            Measure("durable_queue_oldest_wait_seconds", (queue.name,), waited),
            Measure("durable_queue_paused", (queue.name,), queue.paused),
        ]
    inside, waiting = dict[str, int](), dict[str, int]()
    for limit in counts.limits:
        inside[limit.name] = inside.get(limit.name, 0) + limit.inside
        waiting[limit.name] = waiting.get(limit.name, 0) + limit.waiting
    found += [Measure("durable_limit_inside", (name,), count) for name, count in sorted(inside.items())]
    found += [Measure("durable_limit_waiting", (name,), count) for name, count in sorted(waiting.items())]
    found += [Measure("durable_waits", (kind,), count) for kind, count in counts.waits.items()]
    for schedule in all_schedules(conn):
        if schedule.next_at is not None:
            found.append(Measure("durable_schedule_next_seconds", (schedule.name,), schedule.next_at - now))
        found.append(Measure("durable_schedule_failed_total", (schedule.name,), schedule.failed))
    return [
        *found,
        Measure("durable_inbox", (), counts.inbox),
        Measure("durable_batches_open", (), counts.batches_open),
        Measure("durable_events_total", (), counts.events),
        Measure("durable_file_bytes", (), counts.bytes),
        Measure("durable_file_free_bytes", (), counts.bytes_free),
    ]

"""
A schedule as it stands in the file.
"""

from __future__ import annotations

from durable._core.light_tuples import NamedTuple


class ScheduleRow(NamedTuple):
    """A row of `durable_schedules`."""

    name: str
    spec: str
    timezone: str
    anchor: float
    upto: float
    next_at: float | None
    last_at: float | None
    last_run: str | None
    open_runs: tuple[str, ...]
    paused_at: float | None
    skipped: int
    last_skipped_at: float | None
    last_error: str | None
    #: Runs asked for by hand that are yet to be started: (run id, when).
    triggers: tuple[tuple[str, float], ...]
    #: Ticks whose run could not be started.
    failed: int
    #: Of one that was made at run time; None where the program lists it.
    overlap: str | None
    missed: str | None
    #: What it starts, as JSON.
    starts: str | None

    def failing(self, error: str) -> ScheduleRow:
        """The row once one more tick has failed by *error*."""
        return self._replace(failed=self.failed + 1, last_error=error)

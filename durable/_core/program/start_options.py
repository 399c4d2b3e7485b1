"""What a start may be given by keyword, for those who pass it on: `JournalHandle.start` says what each option means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict

from durable._core.program.definition import OnConflict
from durable._core.program.ops import Signal


class StartOptions(TypedDict, total=False):
    """The options of `start`."""

    id: str | None
    key: str | None
    key_ttl: float | timedelta | None
    on_conflict: OnConflict | None
    queue: str | None
    delay: float | timedelta | None
    at: datetime | None
    expires: float | timedelta | datetime | None
    priority: int | None
    labels: Mapping[str, str] | None
    signals: Sequence[tuple[str | Signal[Any], Any]]

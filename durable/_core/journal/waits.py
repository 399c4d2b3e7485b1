"""
What a run waits for, as its decisions ask for it and its history implies it: one value a row.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from durable._core.light_frozen import light_frozen
from durable._core.statuses import WaitKind

#: When the end of a wait wakes its run: always; when its group has no other row; or then and at a
#: failure, which with "fail_fast" also keeps siblings from beginning.
WakeOn: TypeAlias = Literal["any", "all", "failure", "fail_fast"]


@light_frozen
class Wait:
    """One row of what a run waits for. Its arrival closes it."""

    position: str
    kind: WaitKind
    group: str
    wake_on: WakeOn = "any"
    name: str | None = None
    run_id: str | None = None
    fire_at: float | None = None

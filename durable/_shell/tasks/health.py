"""
How an engine is: what `engine.health()` gives, for probes and for people.
"""

from __future__ import annotations

from typing import Literal

from durable._core.light_frozen import late_frozen


@late_frozen
class Health:
    """
    How an engine is.

    *healthy*; *degraded*: it works, but for what the reasons say, which it waits out; *failed*: it ended by itself, and
    the program is to be started again; *closed*: nobody has opened it, or it is being opened, or was closed.
    """

    status: Literal["healthy", "degraded", "failed", "closed"]
    #: One sentence for each thing that is wrong, the oldest first.
    reasons: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it works: for a readiness probe. A liveness probe asks for ``status != "failed"``."""
        return self.status in ("healthy", "degraded")

    def __str__(self) -> str:
        return f"{self.status}: {'; '.join(self.reasons)}" if self.reasons else self.status

"""
What keeps an engine from doing all of its work at the moment. Each is told when it begins, and when it ends.
"""

from __future__ import annotations

from durable._shell.log import log


class Troubles:
    """The troubles of one engine that are not over."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: dict[str, str] = {}

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence for each, the oldest first."""
        return tuple(self._open.values())

    def begin(self, what: str, reason: str) -> None:
        """*what* does not go well, because of *reason*."""
        if what not in self._open:
            self._open[what] = reason
            log.warning("engine.degraded", path=self._path, what=what, reason=reason)
        self._open[what] = reason

    def end(self, what: str) -> None:
        """*what* goes well, perhaps again."""
        if self._open.pop(what, None) is not None:
            log.info("engine.relieved", path=self._path, what=what)

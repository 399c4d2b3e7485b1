"""
Those who wait for what another process does: as long as it takes, unless the one in which they wait is about to end.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator

import anyio

from durable.errors import EngineClosedError


class Waiting:
    """Waits without a limit, until `end_by` gives one to all of them."""

    def __init__(self) -> None:
        self._deadline = math.inf
        self._scopes: set[anyio.CancelScope] = set()

    def end_by(self, deadline: float) -> None:
        """Let nobody wait any longer than until *deadline*, by the event loop's clock."""
        self._deadline = min(self._deadline, deadline)
        for scope in self._scopes:
            scope.deadline = self._deadline

    @contextlib.contextmanager
    def without_limit(self) -> Generator[None]:
        """
        Wait within the block.

        Raises:
            EngineClosedError: Nobody is to wait any longer.
        """
        with anyio.CancelScope(deadline=self._deadline) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            msg = "this process is about to end, and waits no longer: ask again in another one. Runs continue"
            raise EngineClosedError(msg)

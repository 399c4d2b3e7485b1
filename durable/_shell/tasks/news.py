"""
Callers who wait for news of a run: told with the commit that makes some.
"""

from __future__ import annotations

from durable._shell.rows.rows import Effects
from durable._shell.tasks.keyed_futures import KeyedFutures


class News(KeyedFutures[int, None]):
    """Those who wait, by the number of a run: until the next commit that changes something about it."""

    def take(self, effects: Effects) -> None:
        """Tell who waits what a commit group changed."""
        if self:
            for run in self.keys() & effects.touched():
                self.resolve(run, None)

"""
Callers who watch runs: told what a run is like at each change of it.

A commit says which runs it has changed, and those that somebody watches are read together, in one look at the file. So
a thousand watchers cost as much as one look now and then; and nothing while nothing happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final

from durable._core.codec.exceptions.origin import came_from_outside
from durable._shell.reports.watched_rows import Watched, watched_runs
from durable._shell.rows.rows import Effects
from durable._shell.turns.inbox import Read
from durable._shell.turns.services import Spawn
from durable.errors import RunNotFoundError

#: Runs that are read in one look: it shall not keep other readers waiting for long.
MOST_AT_ONCE: Final = 250
#: After a look there is none for so many times as long as it took: those who watch get a tenth of the time.
REST: Final = 9
LONGEST_REST: Final = 2.0


class _Watcher:
    """One caller. What comes while it is busy with something else replaces what it has not seen."""

    __slots__ = ("error", "seen", "wake")

    def __init__(self) -> None:
        self.seen: Watched | None = None
        #: What is raised, where nothing more comes.
        self.error: Exception | None = None
        self.wake = asyncio.Event()


class Watchers:
    """Those of one engine, while it is open."""

    def __init__(self, read: Read, spawn: Spawn) -> None:
        self._read = read
        self._spawn = spawn
        self._watchers: dict[str, set[_Watcher]] = {}
        #: Ids of watched runs by their numbers, and the other way round, as far as they were read.
        self._ids: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        #: Those that are to be read.
        self._due: dict[str, None] = {}
        #: Those that were never read; and the numbers of all that has changed since there were any.
        self._unknown: set[str] = set()
        self._changed: set[int] = set()
        self._is_looking = False

    def __len__(self) -> int:
        return len(self._watchers)

    def take(self, effects: Effects) -> None:
        """Hear what a commit group has changed."""
        if not self._watchers:
            return
        runs: AbstractSet[int] = effects.touched()
        if self._unknown:
            self._changed.update(runs)
        for run in self._ids.keys() & runs:
            self._due[self._ids[run]] = None
        self._look_soon()

    async def follow(self, run_id: str) -> AsyncGenerator[Watched]:
        """
        The run called *run_id* as it is, then as it is after each change, until it has ended.

        Raises:
            RunNotFoundError: There is no such run.
        """
        watcher = _Watcher()
        self._watchers.setdefault(run_id, set()).add(watcher)
        if run_id not in self._numbers:
            self._unknown.add(run_id)
        self._due[run_id] = None
        self._look_soon()
        try:
            while True:
                await watcher.wake.wait()
                watcher.wake.clear()
                if watcher.error is not None:
                    raise watcher.error
                assert watcher.seen is not None, "it is woken with one of the two"
                yield watcher.seen
                if watcher.seen.has_ended:
                    return
        finally:
            self._forget(run_id, watcher)

    def fail(self, error: Callable[[], Exception]) -> None:
        """Tell everybody that nothing more comes: each gets an *error* of its own."""
        for watchers in self._watchers.values():
            for each in watchers:
                each.error = each.error or error()
                each.wake.set()
        self._due.clear()

    def _forget(self, run_id: str, watcher: _Watcher) -> None:
        watchers = self._watchers[run_id]
        watchers.discard(watcher)
        if not watchers:
            del self._watchers[run_id]
            self._unknown.discard(run_id)
            self._due.pop(run_id, None)
            if run_id in self._numbers:
                del self._ids[self._numbers.pop(run_id)]

    def _look_soon(self) -> None:
        if self._due and not self._is_looking:
            self._is_looking = True
            self._spawn(self._look, None)

    async def _look(self, _: None) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._due:
                began = loop.time()
                run_ids = list(self._due)[:MOST_AT_ONCE]
                for each in run_ids:
                    del self._due[each]
                try:
                    found = await self._read(partial(watched_runs, run_ids=run_ids))
                except Exception as error:
                    if came_from_outside(error):
                        raise
                    self._tell_error(run_ids, error)
                else:
                    self._tell(run_ids, found)
                await asyncio.sleep(min(LONGEST_REST, REST * (loop.time() - began)))
        finally:
            self._is_looking = False

    def _tell(self, run_ids: Sequence[str], found: Mapping[str, Watched]) -> None:
        for run_id in run_ids:
            watchers, seen = self._watchers.get(run_id, ()), found.get(run_id)
            if watchers and seen is not None and run_id not in self._numbers:
                self._learn(run_id, seen.details.row.run)
            for each in watchers:
                each.seen = seen
                if seen is None:
                    each.error = RunNotFoundError("id", run_id)
                each.wake.set()
        if not self._unknown:
            self._changed.clear()

    def _tell_error(self, run_ids: Sequence[str], error: Exception) -> None:
        for run_id in run_ids:
            for each in self._watchers.get(run_id, ()):
                each.error = error
                each.wake.set()

    def _learn(self, run_id: str, run: int) -> None:
        """Its number is known from here on. If it has changed since the look began, another one is needed."""
        self._ids[run], self._numbers[run_id] = run_id, run
        self._unknown.discard(run_id)
        if run in self._changed:
            self._due[run_id] = None

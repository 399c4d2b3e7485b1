"""
Futures of those who wait, by what they wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Hashable, KeysView
from contextlib import contextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class KeyedFutures(Generic[K, V]):
    """Any number of futures for each key; a key is there while somebody waits for it."""

    def __init__(self) -> None:
        self._futures: dict[K, list[asyncio.Future[V]]] = {}

    def __len__(self) -> int:
        return len(self._futures)

    def keys(self) -> KeysView[K]:
        """What is waited for."""
        return self._futures.keys()

    @contextmanager
    def until(self, *keys: K) -> Generator[asyncio.Future[V], None, None]:
        """A future that is done once the first of *keys* is resolved."""
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        for key in keys:
            self._futures.setdefault(key, []).append(future)
        try:
            yield future
        finally:
            for key in keys:
                waiting = self._futures.get(key)
                if waiting is not None and future in waiting:
                    waiting.remove(future)
                    if not waiting:
                        del self._futures[key]
            if future.done() and not future.cancelled():
                # looked at, lest asyncio logs it: a failing engine gives it to everybody, wanted or not
                future.exception()

    def resolve(self, key: K, value: V) -> None:
        """Give *value* to all who wait for *key*."""
        for future in self._futures.pop(key, ()):
            if not future.done():
                future.set_result(value)

    def fail(self, error: Callable[[], Exception]) -> None:
        """Tell everybody that nothing will come of it: each gets an *error* of its own."""
        for futures in self._futures.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error())
        self._futures.clear()

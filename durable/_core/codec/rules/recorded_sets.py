"""
Sets that iterate in the order in which they were recorded.

The order of a plain set of strings changes with the process (CPython hashes them with a seed of its own), so a
workflow that loops over a set returned by a step would ask for other commands after a restart. What is decoded
is one of these instead: a `set` or `frozenset` to isinstance, equality, hash and operators, whose iteration follows
the record. What is derived from it (`tags - done`, `tags | more`, a dict made in a loop over it) keeps that order:
first its own items, then those of the other operand as they come.

Only what Python computes behind our back cannot be ordered: ``set(tags)`` and ``{*tags}`` make plain sets again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Any, Self


class _InOrder:
    """What both kinds share: iteration, and what is derived from them. Typed loosely: users see a `set`."""

    __slots__ = ()
    #: The items once more; a dict keeps the order in which they came.
    _order: dict[Any, None]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._order)

    def __reduce_ex__(self, _protocol: Any, /) -> tuple[Any, ...]:
        return type(self), (list(self),)

    def copy(self) -> Any:
        return self._made(self)

    def union(self, *others: Iterable[Any]) -> Any:
        return self._made(chain(self, *others))

    def intersection(self, *others: Iterable[Any]) -> Any:
        kept = [dict.fromkeys(other) for other in others]
        return self._made(item for item in self if all(item in other for other in kept))

    def difference(self, *others: Iterable[Any]) -> Any:
        dropped = dict.fromkeys(chain.from_iterable(others))
        return self._made(item for item in self if item not in dropped)

    def symmetric_difference(self, other: Iterable[Any]) -> Any:
        others = dict.fromkeys(other)
        return self._made(chain(self.difference(others), (item for item in others if item not in self._order)))

    def __or__(self, other: object) -> Any:
        return self.union(other) if isinstance(other, AbstractSet) else NotImplemented

    def __and__(self, other: object) -> Any:
        return self.intersection(other) if isinstance(other, AbstractSet) else NotImplemented

    def __sub__(self, other: object) -> Any:
        return self.difference(other) if isinstance(other, AbstractSet) else NotImplemented

    def __xor__(self, other: object) -> Any:
        return self.symmetric_difference(other) if isinstance(other, AbstractSet) else NotImplemented

    # Python asks these before the plain set of our own kind on the left: of two orders, ours is the one that lasts.
    __ror__ = __or__
    __rand__ = __and__
    __rxor__ = __xor__

    def _made(self, items: Iterable[Any]) -> Any:
        return type(self)(items)  # type: ignore[call-arg]  # each kind takes its items


class RecordedFrozenSet(_InOrder, frozenset[Any]):
    """A frozenset that iterates in its recorded order."""

    __slots__ = ("_order",)

    def __new__(cls, items: Iterable[Any] = ()) -> Self:
        order = dict.fromkeys(items)
        made = super().__new__(cls, order)
        made._order = order
        return made

    def __repr__(self) -> str:
        return f"frozenset({{{', '.join(map(repr, self))}}})" if self else "frozenset()"


class RecordedSet(_InOrder, set[Any]):
    """A set that iterates in its recorded order; what is added later comes last."""

    __slots__ = ("_order",)

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._order = dict.fromkeys(items)
        super().__init__(self._order)

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, self))}}}" if self else "set()"

    def add(self, item: Any, /) -> None:
        super().add(item)
        self._order.setdefault(item)

    def discard(self, item: Any, /) -> None:
        super().discard(item)
        self._order.pop(item, None)

    def remove(self, item: Any, /) -> None:
        super().remove(item)
        del self._order[item]

    def pop(self) -> Any:
        """Take out the first item, in recorded order."""
        item = next(iter(self), self)
        if item is self:
            msg = "pop from an empty set"
            raise KeyError(msg)
        self.remove(item)
        return item

    def clear(self) -> None:
        super().clear()
        self._order.clear()

    def update(self, *others: Iterable[Any]) -> None:
        for item in list(chain.from_iterable(others)):
            self.add(item)

    def difference_update(self, *others: Iterable[Any]) -> None:
        self._become(self.difference(*others))

    def intersection_update(self, *others: Iterable[Any]) -> None:
        self._become(self.intersection(*others))

    def symmetric_difference_update(self, other: Iterable[Any]) -> None:
        self._become(self.symmetric_difference(other))

    def _become(self, items: Iterable[Any]) -> None:
        self.clear()
        self.update(items)

    def __ior__(self, other: object) -> Any:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        self.update(other)
        return self

    def __iand__(self, other: object) -> Any:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        self.intersection_update(other)
        return self

    def __isub__(self, other: object) -> Any:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        self.difference_update(other)
        return self

    def __ixor__(self, other: object) -> Any:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        self.symmetric_difference_update(other)
        return self

"""
`Command`, the class of all that a workflow may yield.

It is deliberately not generic: with ``Op[Any]`` in the annotation of a generator, pyright infers Any for every
op's result.
"""

from __future__ import annotations

from typing import ClassVar


class Command:
    """What a workflow may yield."""

    __slots__ = ()
    #: Whether it is numbered: all are but those that only ask for more of an earlier one.
    is_numbered: ClassVar[bool] = True

    def describe(self) -> str:
        """The command in a few words, for reports."""
        return type(self).__name__

    def discard(self) -> None:
        """Close the helper coroutines in it: it will never run, and Python would complain about them."""

"""
A class decorator for records that are made in thousands: frozen for type checkers, plain when they are made.

The `__init__` of a frozen attrs class calls `object.__setattr__` for each field: it takes three times as long as plain
assignments, and a turn makes a dozen of these records. What is made once a program, and what users keep, is
`attrs.frozen`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attrs import frozen as light_frozen
else:
    from attrs import define
    from attrs.setters import NO_OP

    def light_frozen(cls: type | None = None, *, eq: bool = True) -> Any:
        # compared and hashed as frozen ones are; without hooks for assignments, since there are none
        return define(cls, eq=eq, unsafe_hash=eq or None, on_setattr=NO_OP)


__all__ = ["light_frozen"]

"""
Class decorators for records of ours, which attrs completes at first use.

To write the methods of a class takes attrs a millisecond, of which a program that imports two hundred classes, and uses
sixty, need not spend most. So attrs is asked for them when the first instance is made, or somebody asks for the fields.

`light_frozen` is frozen for type checkers, and plain when an instance is made: the `__init__` of a frozen attrs class
calls `object.__setattr__` for each field, which takes three times as long as plain assignments, and a turn makes a
dozen of these records. `light_define` is what `attrs.define` makes. What users hold is made by attrs itself.
"""

from __future__ import annotations

from inspect import get_annotations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attrs import define as light_define
    from attrs import frozen as light_frozen
else:
    from attrs import NOTHING, define, field
    from attrs.setters import NO_OP

    _GIVEN = type(field())

    def light_frozen(cls: type | None = None, *, eq: bool = True, kw_only: bool = False) -> Any:
        # compared and hashed as frozen ones are; without hooks for assignments, since there are none
        return _unfinished(cls, eq=eq, unsafe_hash=eq or None, kw_only=kw_only)

    def light_define(cls: type | None = None, *, eq: bool = True, kw_only: bool = False) -> Any:
        return _unfinished(cls, eq=eq, kw_only=kw_only)

    def _unfinished(cls: type | None, **options: Any) -> Any:
        return (lambda cls: _Unfinished(cls, options).made) if cls is None else _Unfinished(cls, options).made

    class _Unfinished:
        """Stands for the fields of a class with slots, until somebody asks for them or makes an instance."""

        def __init__(self, cls: type, options: dict[str, Any]) -> None:
            hints = get_annotations(cls)
            given = {name: vars(cls).get(name, NOTHING) for name, hint in hints.items() if not _is_shared(hint)}
            self._fields = {
                name: each if isinstance(each, _GIVEN) else field(default=each) for name, each in given.items()
            }
            self._options = options
            body = {name: each for name, each in vars(cls).items() if name not in (*given, "__dict__", "__weakref__")}
            body |= {"__slots__": tuple(given), "__qualname__": cls.__qualname__, "__attrs_attrs__": self}

            def finish_and_begin(instance: Any, *args: Any, **kwargs: Any) -> None:
                self._finish()
                instance.__init__(*args, **kwargs)

            self.made = type(cls)(cls.__name__, cls.__bases__, body | {"__init__": finish_and_begin})

        def __get__(self, _: object, owner: type) -> Any:
            self._finish()
            return owner.__attrs_attrs__

        def _finish(self) -> None:
            define(self.made, these=self._fields, slots=False, init=True, on_setattr=NO_OP, **self._options)

    def _is_shared(hint: Any) -> bool:
        return str(hint).startswith("ClassVar")


__all__ = ["light_define", "light_frozen"]

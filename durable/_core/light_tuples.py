"""
Named tuples that are made in a fifth of the time.

`typing.NamedTuple` compiles each annotation, and a `__new__` for each class, which takes a program that imports sixty
of them a twentieth of the import. These keep the annotations as they are written, and write `__new__` when the first
tuple is made. For tuples of ours: those that users hold are `typing`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple  # noqa: PLC0414 - for type checkers, which know that one
else:
    from collections import namedtuple
    from collections.abc import Iterable
    from inspect import get_annotations
    from operator import itemgetter

    #: What reads a field, in C: named tuples of the library have it, and no public name has.
    _GETTER: Any = type(namedtuple("One", "field").field)  # noqa: PYI024 - no fields are to be typed
    _getters: dict[int, Any] = {}

    class _Made(type):
        def __new__(cls, name: str, _bases: tuple[type, ...], body: dict[str, Any]) -> Any:
            made = type.__new__(type, name, (_Tuple,), body | {"__slots__": ()})
            made._fields = made.__match_args__ = fields = tuple(get_annotations(made))
            made._field_defaults = {field: body[field] for field in fields if field in body}
            for index, field in enumerate(fields):
                if index not in _getters:
                    _getters[index] = _getter(index)
                setattr(made, field, _getters[index])
            return made

    class _Tuple(tuple):
        __slots__ = ()

        def __new__(cls, /, *args: Any, **kwargs: Any) -> Any:
            _finish(cls)
            return cls.__new__(cls, *args, **kwargs)

        @classmethod
        def _make(cls, values: Iterable[Any]) -> Any:
            return cls(*values)

        def _replace(self, /, **changes: Any) -> Any:
            return type(self)(**self._asdict() | changes)

        __replace__ = _replace

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

        def __repr__(self) -> str:
            told = (f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({', '.join(told)})"

    def _getter(index: int) -> Any:
        try:
            return _GETTER(index, f"Alias for field number {index}")
        except TypeError:  # of an interpreter whose named tuples have properties
            return property(itemgetter(index))

    def _finish(cls: Any) -> None:
        made = next(each for each in cls.__mro__ if "_fields" in vars(each))
        plain = namedtuple(made.__name__, made._fields, defaults=made._field_defaults.values())  # noqa: PYI024 - as above
        made.__new__ = staticmethod(plain.__new__)

    NamedTuple = type.__new__(_Made, "NamedTuple", (), {"__module__": __name__})


__all__ = ["NamedTuple"]

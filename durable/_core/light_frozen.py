"""
Class decorators that let attrs complete a class at its first use.

To write the methods of a class takes attrs a millisecond, of which a program that imports two hundred classes, and uses
sixty, need not spend most. So attrs is asked for them when the first instance is made, or somebody asks for the fields;
and, of records of ours, for how they are compared and hashed when the first two are.

`light_frozen` is for records of ours: frozen for type checkers, and plain when an instance is made: the `__init__` of a
frozen attrs class calls `object.__setattr__` for each field, which takes three times as long as plain assignments, and
a turn makes a dozen of these records. `light_define` is what `attrs.define` makes. `late_frozen` is for what users
hold: as `attrs.frozen` makes it, also for those who pickle it, refer to it weakly, or ask for its signature.

Not for a class with a method that calls `super()` without arguments, since that knows the class as it was written.
"""

from __future__ import annotations

from inspect import get_annotations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attrs import define as light_define
    from attrs import frozen as late_frozen
    from attrs import frozen as light_frozen
else:
    from attrs import NOTHING, define, field, fields, frozen
    from attrs.setters import NO_OP

    _GIVEN = type(field())

    def light_frozen(cls: type | None = None, *, eq: bool = True, kw_only: bool = False) -> Any:
        # compared and hashed as frozen ones are; without hooks for assignments, since there are none
        return _unfinished(cls, _Light, eq=eq, unsafe_hash=eq or None, kw_only=kw_only)

    def light_define(cls: type | None = None, *, eq: bool = True, kw_only: bool = False) -> Any:
        return _unfinished(cls, _Light, eq=eq, kw_only=kw_only)

    def late_frozen(cls: type | None = None, *, eq: bool = True, kw_only: bool = False) -> Any:
        return _unfinished(cls, _Late, eq=eq, kw_only=kw_only)

    def _unfinished(cls: type | None, kind: type[_Unfinished], **options: Any) -> Any:
        return (lambda cls: kind(cls, options).made) if cls is None else kind(cls, options).made

    class _Unfinished:
        """Stands for the fields of a class with slots, until somebody asks for them or makes an instance."""

        def __init__(self, cls: type, options: dict[str, Any], slots: tuple[str, ...] = (), **more: Any) -> None:
            hints = get_annotations(cls)
            self._given = {name: vars(cls).get(name, NOTHING) for name, hint in hints.items() if not _is_shared(hint)}
            self._options = options
            left_out = (*self._given, "__dict__", "__weakref__")
            body = {name: each for name, each in vars(cls).items() if name not in left_out}
            body |= {"__slots__": (*self._given, *slots), "__qualname__": cls.__qualname__, "__attrs_attrs__": self}

            def finish_and_begin(instance: Any, *args: Any, **kwargs: Any) -> None:
                self._finish()
                instance.__init__(*args, **kwargs)

            self.made = type(cls)(cls.__name__, cls.__bases__, body | more | {"__init__": finish_and_begin})

        def __get__(self, _: object, owner: type) -> Any:
            self._finish()
            return owner.__attrs_attrs__

        def _finish(self) -> None:
            raise NotImplementedError

    class _Light(_Unfinished):
        def __init__(self, cls: type, options: dict[str, Any]) -> None:
            # Seldom called, while to write it takes attrs as long as all else together.
            more: dict[str, Any] = {"__repr__": vars(cls).get("__repr__", _shown)}
            if options["eq"] and "__eq__" not in vars(cls):  # of most classes no two records are ever compared

                def finish_and_compare(instance: Any, other: Any) -> Any:
                    self._define(init=False, auto_detect=False, repr=False, **options)
                    return instance.__eq__(other)

                def finish_and_hash(instance: Any) -> int:
                    self._define(init=False, auto_detect=False, repr=False, **options)
                    return hash(instance)

                more["__eq__"] = finish_and_compare
                more["__hash__"] = finish_and_hash if options.get("unsafe_hash") else None
            super().__init__(cls, options, **more)

        def _finish(self) -> None:
            self._define(init=True, eq=False, kw_only=self._options["kw_only"])

        def _define(self, **options: Any) -> None:
            these = {
                name: each if isinstance(each, _GIVEN) else field(default=each) for name, each in self._given.items()
            }
            define(self.made, these=these, slots=False, on_setattr=NO_OP, **options)

    class _Late(_Unfinished):
        def __init__(self, cls: type, options: dict[str, Any]) -> None:
            weak = () if hasattr(cls.__base__, "__weakref__") else ("__weakref__",)
            super().__init__(cls, options, weak, __signature__=_Signature(), __setstate__=_set_state)
            self._cls = cls

        def _finish(self) -> None:
            # Of a class with slots attrs makes another one: what it has written there serves this one. Two threads may
            # both do that, and write the same.
            written = vars(frozen(self._cls, **self._options))
            mine = {name for name in written if name not in vars(self._cls)} - {*self._given, "__slots__"}
            for name in sorted(mine, key=lambda name: name == "__init__"):  # with it others begin
                setattr(self.made, name, written[name])

    def _shown(record: Any) -> str:
        """As attrs shows it."""
        told = (
            f"{each.name}={(repr if each.repr is True else each.repr)(getattr(record, each.name))}"
            for each in fields(type(record))
            if each.repr
        )
        return f"{type(record).__qualname__.rpartition('>.')[2]}({', '.join(told)})"

    class _Signature:
        """Completes the class of which `inspect` asks for the signature, and leaves the answer to `__init__`."""

        def __get__(self, _: object, owner: type) -> Any:
            _ = owner.__attrs_attrs__
            raise AttributeError

    def _set_state(instance: Any, state: Any) -> None:
        _ = type(instance).__attrs_attrs__
        instance.__setstate__(state)

    def _is_shared(hint: Any) -> bool:
        return str(hint).startswith("ClassVar")


__all__ = ["late_frozen", "light_define", "light_frozen"]

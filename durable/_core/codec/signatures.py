"""
The parameters and the result of a function, as recorded arguments and results see them.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from typing import Any, Final

from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.codec.hints import function_hints, innermost
from durable._core.light_frozen import late_frozen


@late_frozen(eq=False)
class ArgumentTypes:
    """The parameters of one function, as recorded arguments see them. Made by `argument_types`."""

    name: str
    signature: inspect.Signature
    #: Of the parameters that can be given by position.
    slots: tuple[Any, ...]
    #: These parameters.
    by_position: tuple[inspect.Parameter, ...]
    names: Mapping[str, Any]
    #: How many of them have no default.
    required: int
    required_named: frozenset[str]
    #: How many arguments may be given where all are given by position.
    counts: range
    rest: Any = None
    rest_named: Any = None
    has_rest: bool = False

    def positional(self, index: int) -> Any:
        """The annotation of the argument at *index*; Any where there is no such parameter."""
        if index < len(self.slots):
            return self.slots[index]
        return self.rest if self.has_rest else Any

    def named(self, name: str) -> Any:
        """The annotation of the argument called *name*; Any where there is no such parameter."""
        found = self.names.get(name, self.rest_named)
        return Any if found is None else found

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """
        The same arguments in the one form in which they are recorded: by position where possible.

        Defaults are not filled in, so that a new default of tomorrow's code is used.

        Raises:
            TypeError: They do not fit; the message shows the signature.
        """
        if not kwargs and len(args) in self.counts:
            return args, {}
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self}: {error}") from None
        return bound.args, bound.kwargs

    def without_defaults(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """
        Arguments that `bind` gave, less those that say what the function would assume anyway.

        So that ``f(1)`` and ``f(1, retries=3)`` are one call where 3 is the default: for telling calls apart,
        not for recording, since who names a value wants that one, whatever the default will be.
        """
        if not kwargs and len(args) <= self.required:  # as most: nothing that has a default is given
            return args, kwargs
        kept = self.less_defaults(kwargs)
        args = args[: self.needed(args)]
        if len(args) > len(self.by_position):
            return args, kept
        for index in range(self.required, len(args)):
            behind = self.by_position[index + 1 : len(args)]
            if self._is_default(index, args[index]) and all(
                each.kind is not inspect.Parameter.POSITIONAL_ONLY for each in behind
            ):
                named = {each.name: value for each, value in zip(behind, args[index + 1 :], strict=True)}
                return args[:index], {**self.less_defaults(named), **kept}
        return args, kept

    def with_defaults(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The same arguments, and the defaults of those that are not given: by position where possible."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.args, bound.kwargs

    def named_by_position(self, args: tuple[Any, ...]) -> dict[str, Any]:
        """Arguments that were given by position, by their names; less those that have none, of ``*args``."""
        return {each.name: value for each, value in zip(self.by_position, args, strict=False)}

    def needed(self, args: tuple[Any, ...]) -> int:
        """How many of *args* are left without the defaults at their end."""
        count = len(args)
        if count <= len(self.by_position):  # else all before the rest are needed
            while count > self.required and self._is_default(count - 1, args[count - 1]):
                count -= 1
        return count

    def _is_default(self, index: int, value: Any) -> bool:
        return _equal(value, self.by_position[index].default)

    def less_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """*kwargs*, less those that are what the function would assume."""
        parameters = self.signature.parameters
        return {
            name: value
            for name, value in kwargs.items()
            if name not in parameters or not _equal(value, parameters[name].default)
        }

    def __str__(self) -> str:
        return f"{self.name}{self.signature}"


def _equal(value: Any, default: Any) -> bool:
    """Whether *value* is the default; of the same type, since 1, 1.0 and True are recorded differently."""
    try:
        return value is default or (type(value) is type(default) and bool(value == default))
    except BaseException as error:  # a comparison of the user's: then they count as different
        if came_from_outside(error):
            raise
        return False


def argument_types(fn: Callable[..., Any], skip: int = 0, *, names: Mapping[str, Any] | None = None) -> ArgumentTypes:
    """
    The parameters of *fn* behind its first *skip*.

    Args:
        fn: The function.
        skip: Leading parameters that are not recorded.
        names: More names for forward references, such as the locals where *fn* is defined.
    """
    signature = inspect.signature(fn)
    parameters = list(signature.parameters.values())[skip:]
    hints = function_hints(fn, names)
    positional: list[Any] = []
    by_position: list[inspect.Parameter] = []
    named: dict[str, Any] = {}
    required = 0
    required_named: set[str] = set()
    rest: dict[str, Any] = {}
    for parameter in parameters:
        hint = hints.get(parameter.name, Any)
        empty = parameter.default is inspect.Parameter.empty
        match parameter.kind:
            case inspect.Parameter.VAR_POSITIONAL:
                rest |= {"rest": hint if typing.get_origin(hint) is not typing.Unpack else Any, "has_rest": True}
            case inspect.Parameter.VAR_KEYWORD:
                if typing.get_origin(hint) is typing.Unpack:
                    from_dict = typing.get_type_hints(typing.get_args(hint)[0], include_extras=True)
                    named |= {key: each for key, each in from_dict.items() if key not in named}
                else:
                    rest["rest_named"] = hint
            case inspect.Parameter.KEYWORD_ONLY:
                named[parameter.name] = hint
                if empty:
                    required_named.add(parameter.name)
            case _:
                positional.append(hint)
                by_position.append(parameter)
                required += empty
                if parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
                    named[parameter.name] = hint
    return ArgumentTypes(
        name=getattr(innermost(fn), "__name__", type(fn).__name__),
        signature=signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty),
        slots=tuple(positional),
        by_position=tuple(by_position),
        names=named,
        required=required,
        required_named=frozenset(required_named),
        counts=range(required, 0 if required_named else sys.maxsize if "has_rest" in rest else len(positional) + 1),
        **rest,
    )


_STREAMS: Final = (AsyncGenerator, AsyncIterator, AsyncIterable)


def yielded_type(fn: Callable[..., Any]) -> Any:
    """The annotation of what an async generator yields; Any where there is none or it cannot be resolved."""
    hint = function_hints(fn, None).get("return", Any)
    return typing.get_args(hint)[0] if typing.get_origin(hint) in _STREAMS else Any


def result_type(fn: Callable[..., Any], *, names: Mapping[str, Any] | None = None) -> Any:
    """
    The annotation of what *fn* returns; Any where there is none or it cannot be resolved.

    For an async generator, which cannot return, the ``R`` of the ``Return[R]`` among what it yields.
    """
    hint = function_hints(fn, names).get("return", Any)
    if typing.get_origin(hint) not in _STREAMS:
        return hint
    yielded = typing.get_args(hint)[0]
    for member in (yielded, *typing.get_args(yielded)):
        origin = typing.get_origin(member)
        if getattr(origin, "__name__", None) == "Return":
            (result,) = typing.get_args(member)
            return Any if isinstance(result, typing.TypeVar) else result
    return Any

"""
Functions of the user's that make a key of a call's arguments: `key=` and `limit_key=`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any

from durable._core.codec.signatures import ArgumentTypes


class KeyFunction:
    """
    *fn*, which is given those arguments of a call that it takes, defaults filled in: equal calls have equal keys.

    By name, where it uses the names of the function that is called; else by position, as many as it takes. What
    it takes as ``*args`` ends with the last that is not a default, so that a function of one argument, such as
    ``attrgetter("id")``, stays one.
    """

    __slots__ = ("_arguments", "_by_name", "_count", "_named_only", "_names", "_required", "_rest", "_rest_named", "fn")

    def __init__(self, fn: Callable[..., Any], arguments: ArgumentTypes) -> None:
        self.fn = fn
        self._arguments = arguments
        own = _parameters(fn)
        kinds = {each.kind for each in own}
        single = [each for each in own if each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
        self._rest = Parameter.VAR_POSITIONAL in kinds
        self._rest_named = Parameter.VAR_KEYWORD in kinds
        self._by_name = not self._rest and Parameter.POSITIONAL_ONLY not in kinds
        self._names = [each.name for each in single]
        self._required = {each.name for each in single if each.default is Parameter.empty}
        self._named_only = [each.name for each in single if each.kind is Parameter.KEYWORD_ONLY]
        self._count = len(single) - len(self._named_only)

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What it makes of a call's arguments. Raises what it raises."""
        arguments = self._arguments
        args, kwargs = arguments.with_defaults(args, kwargs)
        named = {**arguments.named_by_position(args), **kwargs}
        found = {name: named[name] for name in self._names if name in named}
        if self._by_name and found.keys() >= self._required and (found or not self._names):
            return self.fn(**(named if self._rest_named else found))
        count = self._count
        if self._rest:
            count, kwargs = max(count, arguments.needed(args)), arguments.less_defaults(kwargs)
        if not self._rest_named:
            kwargs = {name: found[name] for name in self._named_only if name in found}
        return self.fn(*args[:count], **kwargs)


def _parameters(fn: Callable[..., Any]) -> list[Parameter]:
    """Those of *fn*; of a builtin, which may not tell, any."""
    try:
        return list(inspect.signature(fn).parameters.values())
    except ValueError:
        return [Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)]

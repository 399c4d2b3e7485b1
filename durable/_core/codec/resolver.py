"""
Which rule an annotation asks for: built once, from the rules of its parts, and cached.

Promise: `Rules.get` never raises; what is not supported gets a rule that refuses with a reason.
"""

from __future__ import annotations

import collections.abc
import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Union

from durable._core.codec.hints import substitute
from durable._core.codec.rule import EVERY_KIND, NoneType, Rule, qualified, reason_of, unsupported
from durable._core.codec.rules.choices import enum_rule, literal_rule, union_rule
from durable._core.codec.rules.classes import GetRule, class_rule, is_typed_dict
from durable._core.codec.rules.containers import collection_rule, dict_rule, tuple_rule
from durable._core.codec.rules.scalars import PLAIN, STDLIB
from durable._core.codec.rules.untyped import ANY

_WRAPPERS: Final = frozenset({"Required", "NotRequired", "ReadOnly", "Final", "ClassVar"})
_NO_TYPE: Final = frozenset({inspect.Parameter.empty, typing.NoReturn, typing.Never, typing.Final, typing.ClassVar})

#: What a value annotated with an abstract collection may be. The first is written bare.
_ABSTRACT: Final[dict[Any, tuple[type, ...]]] = {
    collections.abc.Sequence: (list, tuple),
    collections.abc.MutableSequence: (list,),
    collections.abc.Set: (set, frozenset),
    collections.abc.MutableSet: (set,),
    collections.abc.Mapping: (dict,),
    collections.abc.MutableMapping: (dict,),
    collections.abc.Collection: (list, tuple, set, frozenset),
    collections.abc.Iterable: (list, tuple, set, frozenset),
}


class Rules:
    """
    The rules of all annotations seen so far.

    The event loop and the thread of transactions share one without a lock. `known` holds nothing
    that is unfinished: a type that is being built is known to its `_Build` alone. Two threads
    that ask for the same type at once both build it, and either rule will do.

    Args:
        own: Rules of annotations that are to have others than the usual ones.
        of_class: Makes the rule of a class with fields.
        finish: What becomes of each rule, see `agreement.lenient`.
    """

    def __init__(
        self,
        own: Mapping[Any, Rule] | None = None,
        *,
        of_class: Callable[[Any, Any, GetRule], Rule] = class_rule,
        finish: Callable[[Rule], Rule] = lambda rule: rule,
    ) -> None:
        self.of_class = of_class
        self.finish = finish
        known = {None: PLAIN[NoneType], **PLAIN, **STDLIB, **(own or {})}
        self.known: dict[Any, Rule] = {Any: ANY, object: ANY, **{type_: finish(rule) for type_, rule in known.items()}}

    def get(self, type_: Any) -> Rule:
        """The rule for an annotation. Never raises: what is not supported gets a rule that refuses."""
        try:
            found = self.known.get(type_)
        except TypeError:  # e.g. Annotated[int, {}]: cannot be a key
            found = None
        if found is not None:
            return found
        try:
            return _Build(self).get(type_)
        except Exception as error:  # noqa: BLE001 - a class and its annotations are code of the user's
            return unsupported(type_, reason_of(error))


class _Build:
    """One way down from an annotation to its parts, and to theirs."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        #: Stand-ins for types that are being built, where these contain themselves.
        self._open: dict[Any, Rule] = {}

    def get(self, type_: Any) -> Rule:
        try:
            found = self._rules.known.get(type_) or self._open.get(type_)
        except TypeError:  # as above
            return self._build(type_)
        if found is None:
            built = self._build(type_)
            found = self._rules.known[type_] = built if built is ANY else self._rules.finish(built)
        return found

    def _announce(self, type_: Any, name: str, types_: tuple[type, ...], kinds: frozenset[type]) -> None:
        """Let a type that contains itself find itself while its rule is being built."""
        get = self._rules.get
        self._open[type_] = Rule(
            name,
            lambda value, depth: get(type_).encode(value, depth),
            lambda plain: get(type_).decode(plain),
            types_,
            kinds,
        )

    def _build(self, type_: Any) -> Rule:  # one flat list of cases, so that their order is seen at a glance
        origin, args = typing.get_origin(type_), typing.get_args(type_)
        if origin is typing.Annotated:
            brought = [each for each in type_.__metadata__ if isinstance(each, Rule)]
            return brought[0] if brought else self.get(args[0])
        if getattr(origin, "_name", None) in _WRAPPERS:
            return self.get(args[0])
        name = qualified(type_)
        if origin is Union or isinstance(type_, types.UnionType):
            return union_rule(name, [self.get(member) for member in args])
        if origin is Literal:
            return literal_rule(type_, args)
        if hasattr(type_, "__supertype__"):
            return self.get(type_.__supertype__)
        if type(type_).__name__ == "TypeAliasType" or type(origin).__name__ == "TypeAliasType":
            self._announce(type_, name, (), EVERY_KIND)
            alias: Any = origin or type_
            return self.get(substitute(alias.__value__, dict(zip(alias.__type_params__, args, strict=False))))
        base = origin or type_
        if base in _ABSTRACT:
            made = [self.get(_subscript(each, args)) for each in _ABSTRACT[base]]
            return made[0] if len(made) == 1 else union_rule(name, made, bare=made[0])
        if base in (list, set, frozenset):
            return collection_rule(base, name, self.get(args[0] if args else Any))
        if base is tuple:
            if type_ in (tuple, typing.Tuple):  # noqa: UP006 - not tuple[()], which has no args either
                args = (Any, ...)
            if args[1:] == (...,):
                return collection_rule(tuple, name, self.get(args[0]))
            return tuple_rule(name, [self.get(arg) for arg in args])
        if base is dict:
            key, item = args or (Any, Any)
            return dict_rule(name, self.get(key), self.get(item))
        if isinstance(base, type):
            if issubclass(base, enum.Enum):
                return enum_rule(base)
            self._announce(type_, name, (dict if is_typed_dict(base) else base,), frozenset({dict}))
            return self._rules.of_class(type_, base, self.get)
        if isinstance(type_, typing.TypeVar | typing.ForwardRef | str) or type_ in _NO_TYPE:
            return ANY
        return unsupported(type_)


def _subscript(cls: type, args: tuple[Any, ...]) -> Any:
    if not args:
        return cls
    return types.GenericAlias(cls, (args[0], ...) if cls is tuple else args)

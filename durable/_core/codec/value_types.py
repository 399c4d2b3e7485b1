"""
Types of the program's own, which say themselves how they are recorded.

Registered once, ``Engine(types=[ValueType(Money, str, Money.parse)])``, and from then on an annotation like any other:
alone, in fields, in containers and unions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.codec.rule import EVERY_KIND, Refusal, Rule, mismatch, qualified, reason_of
from durable._core.codec.rules.classes import verified
from durable._core.codec.rules.untyped import ANY
from durable._core.light_frozen import late_frozen
from durable.errors import DefinitionError

T = TypeVar("T")


@late_frozen
class ValueType(Generic[T]):
    """
    How values of a class are recorded: ``Engine(types=[ValueType(Money, encode=str, decode=Money.parse)])``.

    The same list is given to a `Client` whose programs use the class. A value that does not come back as one that
    is written alike is refused when it is recorded, as everywhere.

    Args:
        type: The class. Values of its subclasses are not taken for its own.
        encode: Gives what is written: text, numbers, lists, dicts and what else is recorded without an annotation.
        decode: Makes a value of what `encode` gave. It must still read what older versions of it wrote.

    Raises:
        DefinitionError: One of these is no such thing.

    Example:
        >>> class Money:
        ...     def __init__(self, cents: int) -> None:
        ...         self.cents = cents
        >>> money = ValueType(Money, encode=lambda value: str(value.cents), decode=lambda text: Money(int(text)))
        >>> @job
        ... async def double(price: Money) -> Money:
        ...     return Money(price.cents * 2)
        >>> async with Engine(":memory:", [double], types=[money]) as engine:
        ...     (await engine.run(double(Money(5)))).cents
        10
    """

    type: type[T]
    encode: Callable[[T], Any]
    decode: Callable[[Any], T]

    def __attrs_post_init__(self) -> None:
        given: Any = self.type
        if not isinstance(given, type):
            msg = f"ValueType needs a class, found {given!r:.80}"
            raise DefinitionError(msg)
        functions: dict[str, Any] = {"encode": self.encode, "decode": self.decode}
        for name, function in functions.items():
            if not callable(function):
                msg = f"ValueType({qualified(given)}): {name} must be a function, found {function!r:.80}"
                raise DefinitionError(msg)

    @property
    def rule(self) -> Rule:
        """How the codec writes and reads it."""
        name, own = qualified(self.type), self.type

        def encode(value: Any, depth: int) -> Any:
            if type(value) is not own:
                raise mismatch(value, name)
            return ANY.encode(_called(self.encode, value, name), depth)

        def decode(plain: Any) -> Any:
            value = _called(self.decode, ANY.decode(plain), name)
            if type(value) is not own:
                raise Refusal(name, f"its decode function gave {qualified(type(value))}")
            return value

        return Rule(name, verified(encode, decode, name), decode, (own,), EVERY_KIND)


def rules_of(types: Iterable[ValueType[Any]]) -> dict[Any, Rule]:
    """
    The rules of the types that an engine or client was given.

    Raises:
        DefinitionError: Two are of one class, or one is no `ValueType`.
    """
    found: dict[Any, Rule] = {}
    for each in types:
        given: Any = each
        if not isinstance(given, ValueType):
            msg = f"types= takes ValueType(cls, encode, decode), found {given!r:.80}"
            raise DefinitionError(msg)
        if each.type in found:
            msg = f"types=: {qualified(each.type)} is given twice"
            raise DefinitionError(msg)
        found[each.type] = each.rule
    return found


def _called(function: Callable[[Any], Any], value: Any, name: str) -> Any:
    try:
        return function(value)
    except BaseException as error:
        if came_from_outside(error):
            raise
        raise Refusal(name, reason_of(error)) from error

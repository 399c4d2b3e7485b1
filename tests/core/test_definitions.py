"""What may be decorated, what may stand in for the function, and which calls are one and the same."""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Iterator
from operator import methodcaller
from typing import Any
from unittest import mock

import pytest

from durable import call, job, step, transaction, workflow
from durable._core.codec.signatures import argument_types
from durable._core.policies.key_functions import KeyFunction
from durable.errors import DefinitionError


def plain(n: int) -> int:
    """A plain function."""
    return n


class Callable:
    """An object that can be called."""

    def __call__(self, n: int) -> int:
        """As a function."""
        return n


@pytest.mark.parametrize("decorator", [step, job, workflow, transaction], ids=lambda each: each.__name__)
@pytest.mark.parametrize(
    "found, remedy",
    [
        (staticmethod(plain), "write @staticmethod above"),
        (classmethod(plain), "move it out of the class"),
        (property(plain), "move it out of the class"),
        (functools.partial(plain, 1), "found a partial of plain: write a function that calls it"),
        (Callable(), "write a function that calls it"),
        (Callable, "found the class Callable: write a function that makes one"),
        (len, "write a function that calls it"),
        (step(plain), "takes the plain function, plain.fn"),
        (7, "found int 7"),
    ],
    ids=["staticmethod", "classmethod", "property", "partial", "object", "class", "builtin", "step", "number"],
)
def test_what_is_no_function_is_told_what_to_do_instead(decorator, found, remedy):
    """
    Whoever decorates something else reads what it was, and what to write.
    """
    with pytest.raises(DefinitionError, match=f"@{decorator.__name__}") as info:
        decorator(found)
    assert remedy in str(info.value)


def test_a_static_method_may_be_a_step_and_a_method_may_not():
    """
    `@staticmethod` above `@step` works; a method is told why it cannot be one, and the way out.
    """

    class Shop:
        @staticmethod
        @step
        async def charge(n: int) -> int:
            return n

        @step
        async def refund(self, n: int) -> int:
            return n

    assert Shop.charge(1).describe() == Shop().charge(1).describe() == "step 'charge'"
    with pytest.raises(DefinitionError, match=r"is a method of Shop.*Move it out of the class and pass what it needs"):
        Shop().refund  # noqa: B018 - asking for it is what is refused


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="classmethod asks what it decorates for nothing any more")
def test_a_class_method_is_told_whose_it_is_and_the_way_out():
    """
    `@classmethod` above `@step` names the class, not `type`.
    """

    class Shop:
        @classmethod
        @step
        async def charge(cls, n: int) -> int:
            return n

    with pytest.raises(DefinitionError, match=r"is a class method of Shop.*Move it out.*or make it a @staticmethod"):
        Shop.charge  # noqa: B018 - asking for it is what is refused


def lazy(_n: int) -> Iterator[int]:
    """A generator."""
    yield 1


async def lazy_async(_n: int) -> AsyncIterator[int]:
    """An async generator."""
    yield 1


@pytest.mark.parametrize(
    "decorator, found, what",
    [*((each, lazy, "a generator") for each in (step, job, transaction, call)),
     (transaction, lazy_async, "an async generator")],
)  # fmt: skip
def test_a_generator_is_refused_when_it_is_defined(decorator, found, what):
    """
    Its values could not be recorded; who writes one reads what to write instead.
    """
    with pytest.raises(DefinitionError, match=f"'{found.__name__}' is {what}.*return a list.*await their ops in a @wo"):
        decorator(found)


async def untyped():
    """Yields anything."""
    yield 1


@pytest.mark.parametrize(
    "definition, result",
    [
        (step(lazy_async), list[int]),
        (job(lazy_async), list[int]),
        (step(stream=True)(lazy_async), int | None),
        (job(stream=True)(lazy_async), int | None),
        (step(untyped), list[Any]),
        (step(stream=True)(untyped), Any | None),
    ],
)
def test_an_async_generator_returns_what_it_yields(definition, result):
    """
    As a list, or the last of it; its own annotation says of which type.
    """
    assert (definition.result, definition.is_async) == (result, True)


def test_only_an_async_generator_is_a_stream():
    """
    Whoever asks for its last item has one.
    """
    for decorator in (step, job):
        with pytest.raises(DefinitionError, match="stream=True is for async generators, this one yields nothing"):
            decorator(stream=True)(plain)


def test_a_patched_function_is_put_back():
    """
    `unittest.mock.patch.object(step, "fn", ...)` works as on any object, and leaves the step as it was.
    """
    charge = step(plain)
    with mock.patch.object(charge, "fn", mock.Mock(return_value=7)) as fake:
        assert charge.fn is fake
    assert charge.fn is plain
    assert not charge.is_async

    as_job = job(plain)
    with mock.patch.object(as_job, "fn", mock.Mock()) as fake:
        assert as_job.as_step.fn is fake
    assert as_job.as_step.fn is plain


def test_a_default_that_is_written_out_makes_no_other_call():
    """
    Arguments that say what the function assumes anyway do not count, of whatever kind its parameters are.
    """

    def many(a: int, b: int = 2, *rest: int, c: int = 3, d: float = 4.0, **more: int) -> None: ...

    types = argument_types(many)

    def call(*args, **kwargs):
        return types.without_defaults(*types.bind(args, kwargs))

    assert call(1) == call(1, 2) == call(1, b=2) == call(1, 2, c=3) == call(a=1, d=4.0) == ((1,), {})
    assert call(1, 2, 3) == ((1, 2, 3), {})
    assert call(1, c=4, e=3) == ((1,), {"c": 4, "e": 3})
    assert call(1, d=4) == ((1,), {"d": 4}), "4 is recorded as another value than 4.0"
    assert call(1, True) == ((1, True), {})

    def several(a: int, b: int = 2, c: int = 3, d: int = 4) -> None: ...

    types = argument_types(several)
    assert call(1, 2, 5) == call(1, c=5) == call(1, 2, 5, 4) == ((1,), {"c": 5})
    assert call(1, 5, 3, 6) == call(1, 5, d=6) == ((1, 5), {"d": 6})

    def unnamed(a: int, b: int = 2, c: int = 3, /, d: int = 4) -> None: ...

    types = argument_types(unnamed)
    assert call(1, 2, 5) == call(1, 2, 5, 4) == ((1, 2, 5), {})
    assert call(1, 2, 3) == ((1,), {})


@pytest.mark.parametrize(
    "fn, key",
    [
        (lambda host: host, "a"),
        (lambda host, tries: f"{host}-{tries}", "a-3"),
        (lambda tries: f"{tries}", "3"),
        (lambda way: way, "up"),
        (lambda host, *, way: host + way, "aup"),
        (lambda host, sep="/": host + sep, "a/"),
        (lambda way, host: way + host, "upa"),
        (lambda host, **others: f"{host}{others}", "a{'tries': 3, 'way': 'up'}"),
        (lambda **named: f"{named}", "{'host': 'a', 'tries': 3, 'way': 'up'}"),
        (lambda _it: _it, "a"),
        (lambda it, number: f"{it}{number}", "a3"),
        (lambda it, *, way: it + way, "aup"),
        (lambda it, **_: it, "a"),
        (lambda it=None: str(it), "a"),
        (lambda it, /: it, "a"),
        (lambda *every: f"{every}", "('a',)"),
        (lambda it, number, *rest: f"{it}{number}{rest}", "a3()"),
        (lambda: "one", "one"),
        (str, "a"),
        (methodcaller("upper"), "A"),
        ("{}!".format, "a!"),
    ],
)
def test_a_key_function_gets_the_arguments_that_it_takes_and_their_defaults(fn, key):
    """
    Equal calls are equal to it: by name where it uses the same names, and by position where it has its own.
    """

    def ask(host: str, tries: int = 3, *, way: str = "up") -> None: ...

    make = KeyFunction(fn, types := argument_types(ask))
    calls = [(("a",), {}), (("a", 3), {}), (("a",), {"way": "up"}), (("a", 3), {"way": "up"}), ((), {"host": "a"})]
    assert [make(*types.bind(args, kwargs)) for args, kwargs in calls] == [key] * len(calls)


@pytest.mark.parametrize(
    "fn, key",
    [
        (lambda host: host, "a"),
        (lambda it: it, "a"),
        (lambda it, number: f"{it}{number}", "a3"),
        (lambda *every, **named: f"{every}{named}", "('a', 3, 'b'){'way': 'down'}"),
        (lambda it, *rest: f"{it}{rest}", "a(3, 'b')"),
    ],
)
def test_a_key_function_may_leave_arguments_out(fn, key):
    """
    What it does not take makes no difference to it, also where it is not the default.
    """

    def ask(host: str, tries: int = 3, *more: str, way: str = "up") -> None: ...

    assert KeyFunction(fn, argument_types(ask))(("a", 3, "b"), {"way": "down"}) == key


def test_a_required_argument_is_never_dropped():
    """
    What has no default counts, also where a value cannot be compared.
    """

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = None  # type: ignore[assignment]  # as it cannot be compared

    odd = Odd()

    def one(a: object, b: object = odd) -> None: ...

    types = argument_types(one)
    assert types.without_defaults((1, odd), {}) == ((1,), {})
    other = Odd()
    assert types.without_defaults((1, other), {})[0][1] is other
    assert types.without_defaults((None,), {}) == ((None,), {})

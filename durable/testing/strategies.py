"""
Workflows that Hypothesis writes: every command there is, nested at random, with failures caught and not.

For those who put something around workflows: a middleware, a codec, a storage, another driver. A *program* is a
list of plain lists (JSON), so that Hypothesis can shrink it and a failing one can be kept:

    @given(programs())
    async def test_my_codec_changes_nothing(program):
        async with Engine(":memory:", definitions, codec=MyCodec()) as engine:
            assert await engine.run(coroutine_program(program)) == ...

Programs wait for signals called "a" and "b"; see `SIGNALS`. Needs Hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from hypothesis import strategies as st

from durable._core.authoring.decorators import job, step, transaction, workflow
from durable._core.authoring.flow import now, patched, random, uuid4
from durable._core.authoring.op_constructors import (
    as_completed,
    for_each,
    gather,
    poll_until,
    race,
    settle,
    sleep,
    start,
    timeout,
    wait_first,
    wait_for,
)
from durable._core.policies.retry import Retry
from durable._core.program.ops import Flow, Return

#: Statements, each a list that begins with its name.
Program: TypeAlias = list[Any]
#: Names of the signals that programs wait for.
SIGNALS: Final = ("a", "b")


@step
async def echo(value: object) -> object:
    """A step that succeeds."""
    return value


@step
async def fails(value: object) -> object:
    """A step that fails permanently."""
    raise ValueError(value)


@step(retry=Retry(3, delay=2.0))
async def retried(value: object) -> object:
    """A step that fails, and is tried three times."""
    raise LookupError(value)


@transaction
def insert(tx: Any, value: object) -> object:  # noqa: ARG001 - it has no table to write to
    """A transaction."""
    return value


@job
async def child(value: object) -> object:
    """A job that succeeds."""
    return value


@job
async def broken_child(value: object) -> object:
    """A job that fails permanently."""
    raise KeyError(value)


async def _halved(item: int, index: int) -> object:
    """A helper that fails for some items."""
    await (fails(item) if index and item % 2 else child(item))
    return await echo([item, index])


_LEAVES: Final[dict[str, Callable[[int], Any]]] = {
    "step": echo,
    "fails": fails,
    "retried": retried,
    "transaction": insert,
    "child": child,
    "broken child": broken_child,
    "sleep": sleep,
    "signal": lambda n: wait_for(SIGNALS[n % 2]),
    "signal or not": lambda n: wait_for(SIGNALS[n % 2], timeout=n),
    "for each": lambda n: for_each(echo, [n, None, n], concurrency=n % 3 or None),
    "for each child": lambda n: for_each(child, [n, 0], concurrency=n % 2 + 1),
    "for each helper": lambda n: for_each(_halved, [n, 0, n], concurrency=n % 2 + 1, index=True),
    "tolerant children": lambda n: for_each(broken_child, [n, 0, n], concurrency=1, tolerate=n % 4),
    "poll": lambda n: poll_until(echo(n), every=2, timeout=3),
    "enough children": lambda n: for_each(child, [n, 0, n], concurrency=2, enough=2, names=["x", "y", "z"]),
}
#: What is not an op, and so stands in helpers only.
_IN_HELPERS: Final = ("try", "finally", "plain", "started", "as completed")


@workflow
async def coroutine_program(program: list[Any]) -> str:
    """Carries a program out as a coroutine that awaits; what it saw, as text."""
    return repr(await _interpreted(program))


@workflow
async def generator_program(program: list[Any]) -> Flow[str]:
    """Carries a program out as a generator that yields; what it saw, as text."""
    seen: list[Any] = []
    for statement in program:
        if statement[0] in _IN_HELPERS:
            seen.append(await _interpreted([statement]))
        else:
            value: object = yield _op(statement)
            seen.append(_shown(value))
    yield Return(repr(seen))


#: What an engine needs to run programs.
definitions: Final = [coroutine_program, generator_program, child, broken_child]


def _member(program: Program) -> Any:
    """A group's member: an op where the program is one leaf or group, else a helper's coroutine."""
    if len(program) == 1 and program[0][0] not in _IN_HELPERS:
        return _op(program[0])
    return _interpreted(program)


def _op(statement: Any) -> Any:
    match statement:
        case ["gather", mode, members]:
            made = [_member(each) for each in members]
            match mode:
                case "return":
                    return gather(*made, return_exceptions=True)
                case "window":
                    return gather(*made, concurrency=1)
                case "enough" if made:
                    return gather(made, enough=1, concurrency=2)
                case "tolerate":
                    return gather({f"member {index}": each for index, each in enumerate(made)}, tolerate=0.5)
                case _:
                    return gather(*made, fail_fast=mode == "fast")
        case ["race", members]:
            return race(*[_member(each) for each in members])
        case ["wait first", members]:
            return wait_first(_member(each) for each in members)
        case ["timeout", seconds, program]:
            return timeout(_member(program), seconds)
        case ["settle", program]:
            return settle(_member(program))
        case [leaf, n]:
            return _LEAVES[leaf](n)
        case _:
            msg = f"no statement of a program: {statement!r}"
            raise ValueError(msg)


def _plain(what: str) -> object:
    match what:
        case "now":
            return now().timestamp()
        case "random":
            return random().random()
        case "uuid":
            return str(uuid4())
        case _:
            return patched(what)


async def _interpreted(program: Program) -> list[Any]:
    seen: list[Any] = []
    for statement in program:
        match statement:
            case ["plain", what]:
                seen.append(_plain(what))
            case ["try", body]:
                try:
                    seen.append(await _interpreted(body))
                except Exception as error:  # noqa: BLE001 - whatever the program's steps raise
                    seen.append(repr(error))
            case ["finally", body, last]:
                try:
                    seen.append(await _interpreted(body))
                finally:
                    await _interpreted(last)
            case ["as completed", wanted, members]:
                async for each in as_completed(_member(member) for member in members):
                    seen.append(_shown(each))
                    if len(seen) > wanted:
                        break
            case ["started", n]:
                handle = await start(child(n))
                seen.append([handle.run_id, await handle.result()])
            case _:
                seen.append(_shown(await _op(statement)))
    return seen


def _shown(value: object) -> object:
    plain = isinstance(value, (int, str, list, type(None))) and "object at" not in repr(value)
    return value if plain else repr(value)


# --- the strategy ----------------------------------------------------------------------------------------

_SMALL = st.integers(0, 5)
_STATEMENTS = st.one_of(
    st.tuples(st.sampled_from(sorted(_LEAVES)), _SMALL).map(list),
    st.tuples(st.sampled_from(sorted(_LEAVES)), _SMALL).map(list),  # twice, so that most of a program is this
    st.tuples(st.just("plain"), st.sampled_from(["now", "random", "uuid", "patch"])).map(list),
    st.tuples(st.just("started"), _SMALL).map(list),
)


_GATHERS: Final = ["all", "fast", "return", "window", "enough", "tolerate"]


def _groups(statements: Any) -> Any:
    inner = st.lists(statements, max_size=3)
    members = st.lists(inner, max_size=3)
    return st.one_of(
        st.tuples(st.just("gather"), st.sampled_from(_GATHERS), members).map(list),
        st.tuples(st.just("race"), st.lists(inner, min_size=1, max_size=3)).map(list),
        st.tuples(st.just("wait first"), st.lists(inner, min_size=1, max_size=3)).map(list),
        st.tuples(st.just("as completed"), _SMALL, members).map(list),
        st.tuples(st.just("timeout"), _SMALL, inner).map(list),
        st.tuples(st.just("settle"), inner).map(list),
        st.tuples(st.just("try"), inner).map(list),
        st.tuples(st.just("finally"), inner, inner).map(list),
    )


def programs(*, max_leaves: int = 8, max_size: int = 5) -> st.SearchStrategy[Program]:
    """
    Programs of up to *max_size* statements, with up to *max_leaves* commands within groups.

    Give one to `coroutine_program` or `generator_program`.
    """
    return st.lists(st.recursive(_STATEMENTS, _groups, max_leaves=max_leaves), min_size=1, max_size=max_size)

"""Failures: the exception that a workflow catches is the one that its step raised."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import decimal
import json
import sqlite3
import subprocess
import sys
from typing import Any, Self

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable import errors
from durable._core.codec.codec import Codec
from durable._core.codec.failures import MESSAGE_CAP, TRACEBACK_CAP, Failure, describe, rebuild, record_exception
from durable.errors import DecodeError, StepError

CODEC = Codec()


class PaymentError(Exception):
    def __init__(self, order: int, *, code: str) -> None:
        super().__init__(f"order {order}: {code}")
        self.order = order
        self.code = code


class Hostile(Exception):
    """Everything of it that could run, fails."""

    def __init__(self, *args: Any) -> None:
        raise RuntimeError("ran")

    def __new__(cls, *args: Any) -> Self:
        raise RuntimeError("ran")

    def __setattr__(self, name: str, value: Any) -> None:
        raise RuntimeError("ran")


class Slotted(ValueError):
    __slots__ = ("extra",)

    def __init__(self, extra: int) -> None:
        super().__init__("slotted")
        self.extra = extra


class MyOSError(OSError):
    def __init__(self, host: str) -> None:
        super().__init__(111, "refused")
        self.host = host


class Layered(ValueError, OSError):
    pass


@attrs.frozen
class Frozen(Exception):
    code: int


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


class Holder:
    class Inner(KeyError):
        pass


class MyGroup(ExceptionGroup[Exception]):
    pass


def through_json(exc: BaseException) -> Failure:
    """The failure as it comes back from the file."""
    return Failure.from_json(json.loads(json.dumps(record_exception(exc, CODEC).to_json())))


def raised(fn: Any, *args: Any) -> Exception:
    """The exception of a call."""
    with pytest.raises(Exception) as caught:
        fn(*args)
    return caught.value


CASES: list[Exception] = [
    ValueError("bad"),
    ValueError(),
    KeyError("k"),
    KeyError(("a", 1)),
    OSError(2, "No such file", "/tmp/x"),
    raised(open, "/no/such/file"),
    FileNotFoundError(2, "No such file", "a", None, "b"),
    ConnectionResetError(104, "reset"),
    TimeoutError("late"),
    TimeoutError(),
    BlockingIOError(11, "again"),
    raised(b"\xff".decode),
    raised("\ud800".encode),
    raised(json.loads, "{"),
    raised(sqlite3.connect, "/no/such/dir/x"),
    subprocess.CalledProcessError(1, ["ls", "-l"], b"out", "err"),
    decimal.InvalidOperation("x"),
    raised(decimal.Decimal, "x"),
    StopIteration(3),
    ImportError("no", name="n", path="p"),
    ModuleNotFoundError("no", name="n"),
    SyntaxError("bad", ("f.py", 1, 2, "text", 1, 3)),
    AttributeError("no", name="n"),
    raised(int, "x"),
    ZeroDivisionError("division by zero"),
    PaymentError(7, code="declined"),
    Slotted(3),
    MyOSError("h"),
    Frozen(5),
    Holder.Inner("k"),
    errors.RetryAfter(3, "busy"),
    errors.Fatal("no"),
    errors.JournalLockedError("p", "pid 1"),
    errors.NondeterminismError("r", "3", "step 'a'", "step 'b'"),
    errors.StepError("x.Y", "m", {"a": 1}),
]


@pytest.mark.parametrize("exc", CASES, ids=lambda exc: f"{type(exc).__name__}-{exc!s:.20}")
def test_an_exception_comes_back_with_type_text_arguments_and_attributes(exc: Exception) -> None:
    """`except` and everything in its block work on the rebuilt exception as on the original."""
    back = rebuild(through_json(exc))
    assert type(back) is type(exc)
    assert str(back) == str(exc)
    if not isinstance(exc, decimal.InvalidOperation):
        assert back.args == exc.args
    assert vars(back) == vars(exc)
    for name in ("errno", "strerror", "filename", "filename2", "name", "value", "start", "reason", "extra", "lineno"):
        assert getattr(back, name, None) == getattr(exc, name, None)


@pytest.mark.parametrize(
    "cls",
    [c for c in vars(builtins).values() if isinstance(c, type) and issubclass(c, Exception)],
)
def test_every_builtin_exception_is_rebuilt(cls: type[Exception]) -> None:
    """The table of builtins has no holes."""
    special: dict[type[Exception], tuple[Any, ...]] = {
        UnicodeDecodeError: ("utf-8", b"\xff", 0, 1, "bad"),
        UnicodeEncodeError: ("utf-8", "é", 0, 1, "bad"),
        UnicodeTranslateError: ("é", 0, 1, "bad"),
        ExceptionGroup: ("g", [ValueError("x")]),
    }
    exc = cls(*special.get(cls, ("text",)))
    back = rebuild(through_json(exc))
    assert str(back) == str(exc)
    assert type(back) is cls


def test_groups_come_back_nested_with_their_members() -> None:
    """`except*` works on replay."""
    exc = MyGroup("outer", [ValueError(1), ExceptionGroup("inner", [KeyError("k"), PaymentError(1, code="c")])])
    back = rebuild(through_json(exc))
    assert isinstance(back, MyGroup)
    assert str(back) == str(exc)
    first, inner = back.exceptions
    assert (type(first), first.args) == (ValueError, (1,))
    assert isinstance(inner, ExceptionGroup)
    assert [type(each) for each in inner.exceptions] == [KeyError, PaymentError]


def test_causes_are_kept_to_a_depth_and_notes_too() -> None:
    """A chain of causes survives, a cycle of causes ends."""
    exc = ValueError("a")
    exc.__cause__ = KeyError("b")
    exc.__cause__.__cause__ = exc
    exc.add_note("order 7")
    back = rebuild(through_json(exc))
    assert type(back.__cause__) is KeyError
    assert back.__notes__ == ["order 7"]
    length = 0
    link: BaseException | None = back
    while link is not None:
        link, length = link.__cause__, length + 1
    assert length == 6


def test_a_class_that_is_unknown_here_becomes_a_step_error() -> None:
    """The type's name and text are kept for the workflow and for people."""

    class Local(Exception):
        pass

    exc = Local("gone", 1)
    exc.code = 5  # type: ignore[attr-defined]  # what is tested
    exc.__notes__ = ["n"]
    failure = through_json(exc)
    back = rebuild(failure)
    assert isinstance(back, StepError)
    assert back.type_name.endswith("Local")
    assert back.message == "('gone', 1)"
    assert back.data == {"args": ["gone", 1], "code": 5}
    assert back.__notes__ == ["n"]
    known = rebuild(failure, {f"{Local.__module__}:{Local.__qualname__}": Local})
    assert (type(known), known.args) == (Local, ("gone", 1))


@pytest.mark.parametrize(
    "module, name",
    [
        ("antigravity", "X"),
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "SystemExit"),
        ("builtins", "int"),
        (asyncio.CancelledError.__module__, "CancelledError"),
        ("", ""),
        ("sys", "modules.os"),
        ("nowhere", "ValueError"),
    ],
)
def test_a_record_can_name_only_loaded_exception_classes(module: str, name: str) -> None:
    """A forged record imports nothing, calls nothing and makes no BaseException."""
    before = set(sys.modules)
    back = rebuild(Failure(name, module, "m", {"args": ["echo"], "state": {}}))
    assert type(back) is StepError
    assert set(sys.modules) == before


def test_rebuilding_runs_no_code_of_the_class() -> None:
    """Neither __new__, __init__ nor __setattr__ of the user's is called."""
    back = rebuild(Failure("Hostile", __name__, "m", {"args": [1], "state": {"x": 2}}))
    assert type(back) is Hostile
    assert back.args == (1,)
    assert vars(back) == {"x": 2}


def test_layered_native_bases_are_laid_out_by_the_right_one() -> None:
    """ValueError cannot make an instance with OSError's fields; OSError can."""
    assert type(rebuild(through_json(Layered(2, "x")))) is Layered


def test_arguments_that_cannot_be_recorded_become_text() -> None:
    """A response object in an exception does not lose the exception."""
    exc = ValueError("a", object(), float("nan"), "\ud800", Unprintable())
    exc.response = object()  # type: ignore[attr-defined]  # what is tested
    back = rebuild(through_json(exc))
    assert back.args[0] == "a"
    assert back.args[1].startswith("<object object")
    assert back.args[2] == "nan"
    assert all(isinstance(each, str) for each in back.args)
    assert not hasattr(back, "response")


def test_an_exception_that_cannot_be_printed_is_recorded_all_the_same() -> None:
    """Recording never fails."""
    failure = through_json(Unprintable())
    assert failure.message == "<Unprintable without text>"
    assert type(rebuild(failure)) is Unprintable


def test_texts_are_capped_and_the_record_fits_the_cap() -> None:
    """A page of HTML as message, or a thousand members, does not break the journal."""
    failure = record_exception(ValueError("x" * 10**6), CODEC)
    assert len(failure.message) == MESSAGE_CAP
    group = ExceptionGroup("many", [ValueError(f"{n}" * 2000) for n in range(1000)])
    small = Codec(max_bytes=200_000)
    assert len(json.dumps(record_exception(group, small).to_json())) <= 200_000
    assert type(rebuild(record_exception(group, Codec(max_bytes=2**30)))) is ExceptionGroup


def test_the_traceback_is_text_with_the_users_frames_only() -> None:
    """People see where the step failed, not where the engine called it; the tail is kept."""

    def fail(depth: int) -> None:
        if depth:
            fail_again(depth - 1)
        CODEC.encode(object())

    def fail_again(depth: int) -> None:
        fail(depth)

    failure = record_exception(raised(fail, 200), CODEC)
    assert "test_failures.py" in failure.traceback
    assert "codec.py" not in failure.traceback
    assert "EncodeError: cannot record" in failure.traceback
    assert len(failure.traceback) <= TRACEBACK_CAP
    assert record_exception(ValueError(), CODEC, with_traceback=False).traceback == ""


def test_describe_is_one_line() -> None:
    """Lists show an error in one line."""
    assert describe(through_json(ValueError("bad\nmore"))) == "ValueError: bad"
    assert describe(through_json(ValueError())) == "ValueError"
    assert describe(through_json(Holder.Inner("k"))) == "Inner: 'k'"


def test_describe_names_the_first_of_a_group() -> None:
    """
    A line about a group tells what went wrong first, through groups in groups, and stays a line of bounded length.
    """
    inner = ExceptionGroup("1 of 2 failed", [ValueError("bad\nmore")])
    group = ExceptionGroup("2 of 3 failed", [inner, KeyError("k")])
    assert describe(through_json(group)) == (
        "ExceptionGroup: 2 of 3 failed (2 sub-exceptions); "
        "first: ExceptionGroup: 1 of 2 failed (1 sub-exception); first: ValueError: bad"
    )
    assert len(describe(through_json(ExceptionGroup("g" * 500, [ValueError("v" * 500)])))) < 700


def forged(args: list[Any], name: str = "UnicodeDecodeError") -> Exception:
    return rebuild(Failure(name, "builtins", "m", {"args": args, "state": {"start": -9, "object": 7}}))


@pytest.mark.parametrize(
    "args",
    [[], ["utf-8", {"$": "bytes", "v": ""}, -5, -4, "r"], ["utf-8", "text", 0, 1, "r"], [1, 2, 3, 4, 5]],
)
def test_forged_unicode_errors_cannot_read_foreign_memory(args: list[Any]) -> None:
    """CPython trusts the fields of these when it prints them; a record must not set them freely."""
    assert isinstance(str(forged(args)), str)
    assert type(forged(args)) is StepError


@pytest.mark.parametrize("plain", [None, [], {}, {"type": 1}, {"type": "a", "module": "b", "message": "c"}])
def test_what_is_no_failure_is_a_decode_error(plain: Any) -> None:
    """A damaged record is reported as such."""
    with pytest.raises(DecodeError):
        Failure.from_json(plain)


def test_failures_that_nest_without_end_are_decode_errors() -> None:
    """Hostile nesting ends at the cap."""
    plain: dict[str, Any] = {"type": "a", "module": "b", "message": "c", "data": {}}
    for _ in range(100):
        plain = {**plain, "cause": plain}
    with pytest.raises(DecodeError):
        Failure.from_json(plain)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["$", "v", "a"]), inner, max_size=2),
    max_leaves=6,
)
names = st.sampled_from([name for name, c in vars(builtins).items() if isinstance(c, type)] + ["Slotted", "MyOSError"])


@given(
    names,
    st.sampled_from(["builtins", __name__]),
    st.lists(json_values, max_size=6),
    st.dictionaries(
        st.sampled_from(["errno", "lineno", "extra", "name", "msg", "__class__", "__dict__", "x", "start"]), json_values
    ),
)
def test_forged_failures_rebuild_to_some_exception(
    name: str, module: str, args: list[Any], state: dict[str, Any]
) -> None:
    """Whatever a record says, there is an exception to raise, and it can be printed."""
    back = rebuild(Failure(name, module, "m", {"args": args, "state": state}))
    assert isinstance(back, Exception)
    with contextlib.suppress(TypeError):  # fields of the wrong kind; the class's own __str__ says so
        str(back)

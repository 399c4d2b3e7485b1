"""Failures: the exception that a workflow catches is the one that its step raised."""

from __future__ import annotations

import asyncio
import builtins
import decimal
import enum
import importlib.util
import json
import pickle
import sqlite3
import subprocess
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import attrs
import pydantic
import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable import errors
from durable._core.codec.codec import Codec
from durable._core.codec.exceptions.failures import (
    MESSAGE_CAP,
    TRACEBACK_CAP,
    Failure,
    describe,
    rebuild,
    record_exception,
)
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
    vars(back).pop("__notes__", None)  # the traceback
    assert vars(back) == vars(exc)
    for name in ("errno", "strerror", "filename", "filename2", "value", "start", "reason", "extra", "lineno"):
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


def test_the_context_is_kept_beside_the_cause() -> None:
    """What was being handled is told, and what was meant to be hidden stays so."""

    def fails() -> None:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer")  # noqa: B904 - what is tested

    def hides() -> None:
        try:
            fails()
        except ValueError:
            raise PaymentError(1, code="c") from None

    def both() -> None:
        try:
            fails()
        except ValueError as error:
            raise PaymentError(1, code="c") from error

    def another() -> None:
        try:
            fails()
        except ValueError:
            raise PaymentError(1, code="c") from OSError("o")

    back = rebuild(through_json(raised(fails)))
    assert (type(back.__context__), back.__cause__, back.__suppress_context__) == (KeyError, None, False)
    back = rebuild(through_json(raised(hides)))
    assert (type(back.__context__), back.__cause__, back.__suppress_context__) == (ValueError, None, True)
    back = rebuild(through_json(raised(both)))
    assert back.__context__ is back.__cause__
    assert type(back.__cause__) is ValueError
    assert type(back.__cause__.__context__) is KeyError
    back = rebuild(through_json(raised(another)))
    assert (type(back.__context__), type(back.__cause__)) == (ValueError, OSError)


def test_whoever_logs_a_rebuilt_error_sees_the_line_where_it_was_raised() -> None:
    """The recorded frames are a note, for causes and members too; recorded again they are one traceback, not two."""

    def step() -> None:
        raise ValueError("no such card")

    def workflow(error: Exception) -> None:
        raise error

    def caller(error: Exception) -> None:
        raise RuntimeError("failed") from error

    once = rebuild(through_json(raised(step)))
    assert 'raise ValueError("no such card")' in "".join(traceback.format_exception(once))
    failure = through_json(raised(workflow, once))
    lines = [line.strip() for line in failure.traceback.splitlines() if line.strip()[:5] in ("File ", "raise", "Value")]
    assert [line.partition(", in ")[2] or line for line in lines if not line.endswith("in raised")] == [
        "workflow", "raise error", "step", 'raise ValueError("no such card")', "ValueError: no such card",
    ]  # fmt: skip
    twice = rebuild(failure)
    assert len(twice.__notes__) == 1
    text = "".join(traceback.format_exception(rebuild(through_json(raised(caller, twice)))))
    assert text.count('raise ValueError("no such card")') == 1
    assert "in caller" in text


def test_notes_of_the_users_stay_before_the_traceback() -> None:
    """They are part of the error."""

    def fails() -> None:
        error = ValueError("x")
        error.add_note("order 7")
        raise error

    back = rebuild(through_json(raised(fails)))
    assert back.__notes__[0] == "order 7"
    assert len(back.__notes__) == 2
    assert rebuild(through_json(back)).__notes__ == back.__notes__


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
    assert back.args == ("a", "<object object>", "nan", "\ud800", "Unprintable()")
    assert back.response == "<object object>"


class Colour(enum.Enum):
    RED = "r"


class Status(enum.IntEnum):
    GONE = 410


def test_attributes_that_cannot_be_recorded_become_their_repr() -> None:
    """Whoever catches the error finds all of its attributes: an enum member, a response, an object of the user's."""
    exc = PaymentError(1, code="declined")
    vars(exc).update(colour=Colour.RED, status=Status.GONE, none=None, inner=Frozen(3), many=[Colour.RED], lock=Hostile)
    back = rebuild(through_json(exc))
    assert type(back) is PaymentError
    assert vars(back) == {
        "order": 1,
        "code": "declined",
        "colour": "<Colour.RED: 'r'>",
        "status": "<Status.GONE: 410>",
        "none": None,
        "inner": "Frozen(3)",
        "many": "[<Colour.RED: 'r'>]",
        "lock": f"<class '{__name__}.Hostile'>",
    }


def test_texts_of_another_class_are_kept_as_text() -> None:
    """A str of a template engine is a str, and its exception reads the same."""

    class Markup(str):
        __slots__ = ()

        def __repr__(self) -> str:
            return f"Markup({super().__repr__()})"

    back = rebuild(through_json(ValueError(Markup("<b>"))))
    assert str(back) == "<b>"
    assert type(back.args[0]) is str


class Person(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(gt=3)
    tags: list[int] = []

    @pydantic.field_validator("name")
    @classmethod
    def capital(cls, value: str) -> str:
        if not value[0].isupper():
            raise ValueError("not capital {x}")
        if value == "Odd":
            raise pydantic_core.PydanticCustomError("odd", "is {what}", {"what": "odd"})
        return value


@pytest.mark.parametrize("name, age, tags", [("bob", 2, [1, "x"]), ("Odd", "x", []), (3, object(), 5)])
def test_a_validation_error_of_pydantic_comes_back_as_itself(name: Any, age: Any, tags: Any) -> None:
    """With its errors: what was wrong, where, and with which input."""
    exc = raised(lambda: Person(name=name, age=age, tags=tags))
    back = rebuild(through_json(exc))
    assert isinstance(back, pydantic.ValidationError)
    assert isinstance(exc, pydantic.ValidationError)
    assert [(each["loc"], each["msg"], each["type"]) for each in back.errors()] == [
        (each["loc"], each["msg"], each["type"]) for each in exc.errors()
    ]
    if type(age) is not object:
        assert str(back) == str(exc)
        assert back.errors()[0]["input"] == name
    assert "Recorded traceback" in back.__notes__[0]


def test_a_validation_error_that_hides_its_input_is_recorded_without() -> None:
    """What a model keeps out of messages is kept out of the journal."""

    class Secret(pydantic.BaseModel, hide_input_in_errors=True):
        pin: int

    pin = "hunter2"
    failure = through_json(raised(lambda: Secret(pin=pin)))  # type: ignore[arg-type]  # what is tested
    assert "hunter2" not in json.dumps(failure.to_json())
    assert "input_value" not in str(rebuild(failure))


@pytest.mark.parametrize("recorded", [None, {}, {"title": 3}, {"title": "t", "errors": [{}], "hides_input": False}])
def test_a_forged_validation_error_is_a_step_error(recorded: Any) -> None:
    """What pydantic does not take is not an error of pydantic's."""
    data = {"args": [], "state": {}, "validation": recorded}
    failure = Failure("ValidationError", "pydantic_core._pydantic_core", "m", data)
    assert type(rebuild(failure)) is StepError


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


@pytest.mark.parametrize("cls", [ImportError, ModuleNotFoundError])
def test_no_import_error_names_a_module(cls: type[ImportError]) -> None:
    """Python 3.12 and later import the module that such an error names, when they print it."""
    state = {"msg": "cannot import", "name": "antigravity", "name_from": "fly", "path": "p"}
    back = rebuild(Failure(cls.__name__, "builtins", "m", {"args": ["cannot import"], "state": state}, "  File x\n"))
    assert type(back) is cls
    assert (back.msg, back.path, back.name) == ("cannot import", "p", None)
    assert not getattr(back, "name_from", None)
    before = set(sys.modules)
    "".join(traceback.format_exception(back))
    assert set(sys.modules) == before


class Nosy:
    """Has an attribute that does something when it is looked at."""

    looked = False

    def print(self, error: Exception) -> str:
        try:
            raise error
        except Exception as raised:
            return "".join(traceback.format_exception(raised))

    @property
    def launch(self) -> None:
        type(self).looked = True


@pytest.mark.parametrize("name", ["NameError", "UnboundLocalError", "AttributeError"])
def test_what_a_record_names_is_not_looked_up_where_it_is_raised(name: str) -> None:
    """Python asks the `self` of the raising frame for the name, to suggest ``self.launch``."""
    state = {"name": "launch", "obj": "x"}
    back = rebuild(Failure(name, "builtins", "m", {"args": ["m"], "state": state}))
    assert type(back).__name__ == name
    Nosy().print(back)
    assert not Nosy.looked


def test_a_syntax_error_leads_to_no_file_and_no_number_without_bounds() -> None:
    """What prints it shows the recorded line; markers below it are as long as the record says."""
    state = {
        "msg": "bad", "filename": "/etc/passwd", "text": "x = ", "lineno": 1, "offset": 10**12, "end_lineno": "x",
        "end_offset": 10**12, "print_file_and_line": 1, "_metadata": [1, 2, "x"],
    }  # fmt: skip
    back = rebuild(Failure("SyntaxError", "builtins", "m", {"args": ["bad"], "state": state}))
    assert isinstance(back, SyntaxError)
    assert (back.filename, back.offset, back.end_offset, back.end_lineno) == ("passwd", None, None, None)
    assert str(back) == "bad (passwd, line 1)"
    assert len("".join(traceback.format_exception(back))) < 1_000


@pytest.mark.parametrize(
    "name", ["__class__", "__reduce_ex__", "__dict__", "__notes__", "args", "add_note", "with_traceback", "__cause__"]
)
def test_a_record_changes_nothing_that_python_looks_up_on_exceptions(name: str) -> None:
    """No method of the interpreter's is shadowed, and notes are text."""
    back = rebuild(Failure("ValueError", "builtins", "m", {"args": ["x"], "state": {name: ["x", 5], "code": 3}}))
    assert back.code == 3  # type: ignore[attr-defined]  # recorded
    assert back.args == ("x",)
    assert getattr(back, "__notes__", ["x"]) == ["x"]
    assert back.__cause__ is None
    back.add_note("a")
    assert pickle.loads(pickle.dumps(back)).args == ("x",)


def test_a_group_keeps_its_methods() -> None:
    """`except*` calls them."""
    state = {"derive": 1, "split": 2, "subgroup": 3, "message": 4, "exceptions": 5}
    member = Failure("ValueError", "builtins", "m", {"args": [], "state": {}})
    back = rebuild(Failure("MyGroup", __name__, "m", {"args": ["g"], "state": state}, members=(member,)))
    with pytest.raises(ExceptionGroup):
        try:
            raise back
        except* KeyError:
            pass


def test_a_lazy_module_stays_unloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is imported when something of it is asked for: a record asks for nothing."""
    path = tmp_path / "lazily.py"
    path.write_text("raise SystemExit('imported')\n")
    spec = importlib.util.spec_from_file_location("lazily", path)
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazily", module)
    spec.loader.exec_module(module)
    assert type(rebuild(Failure("Error", "lazily", "m", {"args": [], "state": {}}))) is StepError


@pytest.mark.parametrize(
    "found", [3, types.SimpleNamespace(Error=ValueError), type("Odd", (), {"Error": ValueError})()]
)
def test_what_is_no_module_has_no_classes(found: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs put all kinds of objects into `sys.modules`."""
    monkeypatch.setitem(sys.modules, "odd", found)  # type: ignore[arg-type]  # what is tested
    assert type(rebuild(Failure("Error", "odd", "m", {"args": [], "state": {}}))) is StepError


@pytest.mark.parametrize("make", [lambda: ["x"] * 10**6, lambda: "x" * 10**8, lambda: {n: n for n in range(10**5)}])
def test_large_values_are_kept_as_their_head(make: Callable[[], Any]) -> None:
    """An argument or attribute is there, and is not larger than its share."""
    exc = ValueError(make())
    exc.value = make()  # type: ignore[attr-defined]  # what is tested
    failure = record_exception(exc, CODEC)
    assert len(json.dumps(failure.to_json())) < 300_000
    back = rebuild(failure)
    assert isinstance(back.args[0], str)
    assert isinstance(back.value, str)  # type: ignore[attr-defined]


def test_a_file_in_another_encoding_is_an_error_of_its_own_type() -> None:
    """It holds all that was read, of which only the beginning is recorded: `except UnicodeError` works."""
    for exc in (
        raised((b"fine\xff" + b"x" * 10_000_000).decode),
        raised(("fine\udc80" + "x" * 10_000_000).encode),
    ):
        back = rebuild(through_json(exc))
        assert type(back) is type(exc)
        assert str(back) == str(exc)


@pytest.mark.parametrize("max_bytes", [0, 100, 1_000, 10_000, 2**30])
def test_a_record_fits_whatever_cap_there_is(max_bytes: int) -> None:
    """Escaped characters, groups and chains included; an engine may have any cap."""
    group = ExceptionGroup("many", [ValueError("\x00" * 5_000, "é" * 5_000) for _ in range(300)])
    group.__cause__ = KeyError("\x00" * 5_000)
    failure = record_exception(group, Codec(max_bytes=max_bytes))
    assert failure.type_name == "ExceptionGroup"
    assert len(json.dumps(failure.to_json(), ensure_ascii=False).encode()) <= max(max_bytes, 1_000)
    rebuild(Failure.from_json(json.loads(json.dumps(failure.to_json()))))


def test_a_group_that_is_too_large_says_what_is_missing() -> None:
    """The first members are kept, and a note counts the others."""
    back = rebuild(record_exception(ExceptionGroup("g", [ValueError(n) for n in range(5_000)]), CODEC))
    assert isinstance(back, ExceptionGroup)
    assert [each.args for each in back.exceptions[:3]] == [(0,), (1,), (2,)]
    assert back.__notes__ == [f"{5_000 - len(back.exceptions)} more were not recorded"]


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
    str(back)
    traceback.format_exception(back)
    pickle.dumps(back)

"""
Exceptions that nobody would write on purpose, each with something that does harm when it is touched.

`KINDS` makes one of each. What they stand for: errors of object mappers on detached sessions, lazy proxies, responses
that are not what was expected, groups of thousands, errors of C extensions, plain slips.
"""

# ruff: noqa: PLE0307 - texts that are none

import asyncio
import concurrent.futures
import enum
import sqlite3
import sys
import threading
import time
import types

import pydantic

import durable
import durable._cli.main
import durable._shell.engine.engine
from durable._core.codec.class_names import module_of

#: Long enough for a test that waits for it to be noticed.
FOREVER = 5.0


# --- texts -----------------------------------------------------------------------------------------------------


class ReprRaises(Exception):
    def __repr__(self):
        raise ValueError("no repr")


class StrRaises(Exception):
    def __str__(self):
        raise ValueError("no str")


class BothRaise(Exception):
    def __str__(self):
        raise ValueError("no text")

    __repr__ = __str__


class ReprRecursive(Exception):
    def __repr__(self):
        return repr(self)


class StrRecursive(Exception):
    def __str__(self):
        return f"{self}"


class ReprNotStr(Exception):
    def __repr__(self):
        return 5


class StrNotStr(Exception):
    def __str__(self):
        return None


class StrInterrupts(Exception):
    def __str__(self):
        raise KeyboardInterrupt


class StrExits(Exception):
    def __str__(self):
        sys.exit(3)


class ReprExits(Exception):
    def __repr__(self):
        raise SystemExit(3)


class StrCancels(Exception):
    def __str__(self):
        raise asyncio.CancelledError


class StrCloses(Exception):
    def __str__(self):
        raise GeneratorExit


class StrLoops(Exception):
    def __str__(self):
        while True:
            pass


class StrSleeps(Exception):
    def __str__(self):
        time.sleep(FOREVER)


class StrWaits(Exception):
    def __str__(self):
        threading.Event().wait(FOREVER)


class ReprSleeps(Exception):
    def __repr__(self):
        time.sleep(FOREVER)


class StrHuge(Exception):
    def __str__(self):
        return "s" * 20_000_000


class StrSurrogate(Exception):
    def __str__(self):
        return "\ud800"


class OddText(str):  # noqa: SLOT000 - odd in this, too
    """A str whose every method fails."""

    def _fail(self, *_):
        raise RuntimeError("odd text")

    __str__ = __repr__ = __format__ = __getitem__ = __iter__ = __len__ = __eq__ = _fail
    encode = strip = partition = isascii = splitlines = startswith = _fail
    __hash__ = str.__hash__


class StrOdd(Exception):
    def __str__(self):
        return OddText("odd")

    __repr__ = __str__


# --- attributes, classes ---------------------------------------------------------------------------------------


class Touchy:
    """Raises whatever is done to it."""

    def _fail(self, *_):
        raise RuntimeError("touched")

    __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __reduce_ex__ = _fail
    __class__ = property(_fail)

    def __getattribute__(self, name):
        raise RuntimeError(name)


class Endless:
    """Never says what it is."""

    def __repr__(self):
        while True:
            pass

    __str__ = __repr__


class CauseProperty(Exception):
    @property
    def __cause__(self):
        raise RuntimeError("cause")

    @property
    def __context__(self):
        raise RuntimeError("context")

    @property
    def __suppress_context__(self):
        raise RuntimeError("suppress")


class ArgsProperty(Exception):
    @property
    def args(self):
        raise RuntimeError("args")


class ArgsNumber(Exception):
    args = 5


class DictProperty(Exception):
    @property
    def __dict__(self):
        raise RuntimeError("dict")


class TracebackProperty(Exception):
    @property
    def __traceback__(self):
        raise RuntimeError("traceback")


class ClassLies(Exception):
    @property
    def __class__(self):
        raise RuntimeError("class")


class ClassPretends(Exception):
    @property
    def __class__(self):
        return asyncio.CancelledError


class NotesNumber(Exception):
    __notes__ = 7


class Untouchable(Exception):
    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __setattr__(self, name, value):
        raise RuntimeError(name)


class LoopsOnTouch(Exception):
    def __getattribute__(self, name):
        while True:
            pass


class AnswersAll(Exception):
    def __getattr__(self, name):
        return Touchy()


class NoHash(Exception):
    def __hash__(self):
        raise RuntimeError("hash")

    def __eq__(self, other):
        raise RuntimeError("eq")


class NoReduce(Exception):
    def __reduce__(self):
        raise RuntimeError("reduce")

    __reduce_ex__ = __getstate__ = __reduce__


class NoBool(Exception):
    def __bool__(self):
        raise RuntimeError("bool")

    __len__ = __bool__


class MetaRefuses(type):
    def __getattribute__(cls, name):
        raise RuntimeError(name)

    def _fail(cls, *_):
        raise RuntimeError("meta")

    __repr__ = __str__ = __hash__ = __eq__ = __instancecheck__ = __subclasscheck__ = _fail


class WithMeta(Exception, metaclass=MetaRefuses):
    pass


class NoModule(Exception):
    pass


NoModule.__module__ = None


class OddModule(Exception):
    pass


OddModule.__module__ = Touchy()


class OddName(Exception):
    pass


OddName.__qualname__ = OddText("OddName")


class Slotted(Exception):
    __slots__ = ("empty", "touchy")

    def __init__(self):
        super().__init__()
        self.touchy = Touchy()


class Demanding(Exception):
    def __init__(self, one, *, two):
        self.one, self.two = one, two


class Forgetful(Exception):
    def __init__(self, response):
        self.response = response

    def __repr__(self):
        return f"Forgetful({self.response['code']})"

    __str__ = __repr__


class GroupProperty(ExceptionGroup):
    @property
    def exceptions(self):
        raise RuntimeError("exceptions")

    @property
    def message(self):
        raise RuntimeError("message")


class Colour(enum.Enum):
    RED = 1


class Form(pydantic.BaseModel):
    age: int


# --- made by functions -----------------------------------------------------------------------------------------


def with_attribute(value):
    error = ValueError("x")
    error.attribute = value
    return error


def touchy_argument():
    return ValueError(Touchy(), Touchy())


def endless_argument():
    return ValueError(Endless())


def touchy_attribute():
    return with_attribute(Touchy())


def endless_attributes():
    error = ValueError("x")
    for number in range(300):
        setattr(error, f"a{number}", Endless())
    return error


def huge_attribute():
    return with_attribute("y" * 20_000_000)


def deep_attribute():
    value = []
    for _ in range(100_000):
        value = [value]
    return with_attribute(value)


def shared_attribute():
    value = ["x"]
    for _ in range(60):
        value = [value, value]
    return with_attribute(value)


def attribute_of_itself():
    error = ValueError("x")
    error.itself = error
    return error


def many_attributes():
    error = ValueError("x")
    error.__dict__.update({f"a{number}": number for number in range(100_000)})
    return error


def odd_attribute_names():
    error = ValueError("x")
    error.__dict__.update({5: 1, OddText("odd"): 2, "\ud800": 3, "a" * 100_000: 4, "__class__": 5, "__reduce_ex__": 6})
    return error


def odd_dictionary():
    class Odd(dict):
        def _fail(self, *_):
            raise RuntimeError("dict")

        items = keys = __iter__ = __getitem__ = get = __len__ = __contains__ = _fail

    error = ValueError("x")
    error.__dict__ = Odd(a=1)
    return error


def enum_attribute():
    return with_attribute(Colour.RED)


def causes_in_a_circle():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    one.__context__, two.__context__ = two, one
    return one


def its_own_cause():
    error = ValueError("x")
    error.__cause__ = error.__context__ = error
    return error


def long_chain():
    error = ValueError("first")
    for number in range(50_000):
        following = ValueError(number)
        following.__cause__ = following.__context__ = error
        error = following
    return error


def chain_of_two_ways():
    error = ValueError("first")
    for number in range(40):
        following = ValueError(number)
        following.__cause__, following.__context__ = error, ValueError("other")
        following.__context__.__context__ = error
        error = following
    return error


def cause_that_is_hostile():
    error = ValueError("x")
    error.__cause__, error.__context__ = BothRaise(), Untouchable()
    return error


def cancelled_cause():
    error = ValueError("x")
    error.__cause__, error.__context__ = asyncio.CancelledError(), KeyboardInterrupt()
    return error


def deep_group():
    error = ValueError("x")
    for _ in range(3_000):
        error = ExceptionGroup("g", [error])
    return error


def wide_group():
    return ExceptionGroup("g", [ValueError(number) for number in range(20_000)])


def nested_groups_of_five_thousand():
    inner = [ValueError(number) for number in range(5_000)]
    while len(inner) > 1:
        inner = [ExceptionGroup("g", inner[at : at + 3]) for at in range(0, len(inner), 3)]
    return inner[0]


def group_of_groups():
    error = ValueError("x")
    for _ in range(30):
        error = ExceptionGroup("g", [error, error])
    return error


def hostile_group():
    return ExceptionGroup("g", [BothRaise(), Untouchable(), WithMeta(), ClassLies()])


def group_property():
    return GroupProperty("g", [ValueError(1)])


def group_with_an_odd_message():
    return ExceptionGroup(OddText("odd"), [ValueError(1)])


def huge_message():
    return ValueError("m" * 20_000_000)


def control_characters():
    return ValueError("\x00\x1b[31m\x07" * 20_000)


def many_arguments():
    return ValueError(*["z" * 100] * 200_000)


def huge_number():
    return ValueError(1 << 10_000_000)


def deep_argument():
    value = []
    for _ in range(100_000):
        value = [value]
    return ValueError(value)


def argument_that_contains_itself():
    value = []
    value.append(value)
    return ValueError(value, {"self": value})


def odd_argument():
    return ValueError(OddText("odd"))


def mixed_arguments():
    return ValueError(float("nan"), {float("inf"): {1, "a"}}, lambda: None, object, {Colour.RED: b"\xff"}, 1j, ...)


def many_notes():
    error = ValueError("x")
    for _ in range(20_000):
        error.add_note("n" * 1_000)
    return error


def huge_notes():
    error = ValueError("x")
    error.__notes__ = ["n" * 10_000_000] * 3
    return error


def odd_notes():
    error = ValueError("x")
    error.__notes__ = [1, Touchy(), OddText("odd"), "\ud800", None]
    return error


def notes_that_are_none():
    error = ValueError("x")
    error.__notes__ = Touchy()
    return error


def deep_traceback():
    namespace = {}
    exec("def f(n):\n    if n == 0: raise ValueError('deep')\n    f(n - 1)\n", namespace)
    return _raised(namespace["f"], 900)


def long_line():
    namespace = {}
    exec(
        compile("def f():\n    x = '" + "a" * 5_000_000 + "'; raise ValueError('line')\n", "<long>", "exec"), namespace
    )
    return _raised(namespace["f"])


def long_file_name():
    # One name rather than a million folders: coverage asks the disk for each of them.
    return _raised(lambda: exec(compile("1 / 0", "/" + "f" * 2_000_000, "exec")))


def raised_in_a_device():
    return _raised(lambda: exec(compile("1 / 0", "/dev/zero", "exec")))


def _raised(fn, *args):
    try:
        fn(*args)
    except Exception as error:
        return error
    raise AssertionError


def lone_surrogate():
    return ValueError("\ud800 lone", "\udfff")


def unicode_error():
    return _raised("\ud800".encode)


def large_unicode_error():
    return _raised((b"x" * 5_000_000 + b"\xff").decode)


def tampered_unicode_error():
    error = _raised(b"\xff".decode)
    error.object, error.encoding = 5, Touchy
    return error


def stop_iteration():
    return StopIteration(Touchy())


def stop_async_iteration():
    return StopAsyncIteration(5)


def os_error():
    return OSError(5, Touchy(), "/etc/passwd", None, "b")


def nul():
    return ValueError("a\0b")


def import_error():
    return ImportError("x", name="antigravity", path="p")


def syntax_error():
    error = SyntaxError("bad", ("/dev/zero", 1, 2, "text", 1, 3))
    error.lineno, error.offset, error.text = Touchy(), 10**18, Touchy()
    return error


def key_error():
    return KeyError(Touchy())


def attribute_error():
    return AttributeError("x", name="x", obj=Endless())


def memory_error():
    return MemoryError()


def recursion_error():
    def fall():
        fall()

    return _raised(fall)


def assertion_error():
    return AssertionError(Touchy())


def timeout_error():
    return TimeoutError()


def database_error():
    return sqlite3.OperationalError("disk I/O error")


def full_disk():
    return sqlite3.OperationalError("database or disk is full")


def tampered_database_error():
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = "x"
    return error


def cancelled_future():
    return concurrent.futures.CancelledError()


def validation_error():
    return _raised(Form.model_validate, {"age": Touchy()})


def retry_after_for_ever():
    return durable.RetryAfter(float("inf"))


def retry_after_nothing():
    error = durable.RetryAfter(1)
    error.seconds = Touchy()
    return error


def demanding():
    return Demanding(1, two=2)


def forgetful():
    return Forgetful({})


# --- errors of this library, as nobody should raise them -------------------------------------------------------


def _of_the_library(cls):
    def make():
        if issubclass(cls, ExceptionGroup):
            return cls("a", [ValueError("b")])
        error = cls.__new__(cls)
        error.args = ("a", "b")
        return error

    return make


_CLASSES = {
    name: each
    for name, each in globals().items()
    if isinstance(each, type)
    and issubclass(each, Exception)
    and name not in ("GroupProperty", "Demanding", "Forgetful")
}
_FUNCTIONS = {
    name: each
    for name, each in globals().items()
    if type(each) is types.FunctionType and each.__module__ == __name__ and name[0] != "_" and name != "with_attribute"
}


def _of_ours(base=Exception):
    """Every exception class of this library that is loaded, those that are nobody's business included."""
    for each in type.__subclasses__(base):
        if module_of(each).startswith("durable."):
            yield each
        yield from _of_ours(each)


_LIBRARY = {each.__qualname__: _of_the_library(each) for each in _of_ours() if each is not durable.RetryAfter}

#: Makes an exception of each kind, by name.
KINDS = {**_CLASSES, **_FUNCTIONS, **_LIBRARY}


# --- what is not an Exception --------------------------------------------------------------------------------------


class Abort(BaseException):
    """A library's own."""


class HostileAbort(BaseException):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__

    @property
    def __class__(self):
        raise RuntimeError("class")


#: What escapes `except Exception`.
OUTSIDERS = {
    "SystemExit": lambda: SystemExit(2),
    "SystemExit of nothing": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": lambda: GeneratorExit("g"),
    "CancelledError": lambda: asyncio.CancelledError("leaked"),
    "RunCancelled": lambda: durable.RunCancelled("mine"),
    "Abort": lambda: Abort("library"),
    "HostileAbort": HostileAbort,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError("x")]),
}

"""
What differs whenever workflow code is replayed: functions that ask the world, by name, and what to use in their place.

Looked up among modules that are imported already, since code cannot use others. Only identities are compared: of the
user's objects nothing is called.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, Final

from durable._core.light_tuples import NamedTuple

_NOW: Final = "durable.now()"
_RANDOM: Final = "durable.random()"
_ARGUMENT: Final = "an argument of the workflow, or a step"
_STEP: Final = "a step"
_SLEEP: Final = "durable.sleep()"
_GATHER: Final = "durable.gather()"
_TIMEOUT: Final = "durable.timeout()"
_THREAD: Final = "a step (a plain `def` runs in a thread, process=True in a process)"

_CLOCKS: Final = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
_DICE: Final = (
    "random", "uniform", "randint", "randrange", "choice", "choices", "sample", "shuffle", "getrandbits", "randbytes",
    "gauss", "normalvariate", "triangular", "betavariate", "expovariate", "gammavariate", "lognormvariate",
    "vonmisesvariate", "paretovariate", "weibullvariate", "binomialvariate", "seed",
)  # fmt: skip

#: What gives other answers in every replay, by its name: what to use instead.
READS: Final[Mapping[str, str]] = {
    **{f"time.{name}{unit}": _NOW for name in _CLOCKS for unit in ("", "_ns")},
    **dict.fromkeys(("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today"), _NOW),
    "datetime.date.today": _NOW,
    **{f"random.{name}": _RANDOM for name in _DICE},
    **dict.fromkeys(("uuid.uuid1", "uuid.uuid4", "uuid.uuid6", "uuid.uuid7"), "durable.uuid4()"),
    **dict.fromkeys(("os.urandom", "os.getrandom"), f"a step, or {_RANDOM}"),
    **{f"secrets.{name}": _STEP for name in ("token_bytes", "token_hex", "token_urlsafe", "randbelow", "randbits")},
    "secrets.choice": _STEP,
    **dict.fromkeys(("os.getenv", "os.environ", "os.environb"), _ARGUMENT),
    **dict.fromkeys(("os.getpid", "os.getcwd", "os.cpu_count", "os.getlogin"), _STEP),
    **dict.fromkeys(("socket.gethostname", "platform.node", "getpass.getuser"), _STEP),
}
#: As `READS`, where they are called without arguments.
BARE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("time.localtime", "time.gmtime", "time.ctime", "time.asctime"), _NOW),
    **dict.fromkeys(("random.Random", "random.SystemRandom"), _RANDOM),
}
#: What does something outside, or waits for it, by its name: each replay does it again.
ACTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("asyncio.sleep", "time.sleep", "anyio.sleep"), _SLEEP),
    **dict.fromkeys(("asyncio.gather", "asyncio.wait", "asyncio.as_completed", "asyncio.TaskGroup"), _GATHER),
    **dict.fromkeys(("asyncio.create_task", "asyncio.ensure_future"), f"{_GATHER}, or start() for a run of its own"),
    **dict.fromkeys(("asyncio.wait_for", "asyncio.timeout", "asyncio.timeout_at"), _TIMEOUT),
    **dict.fromkeys(("asyncio.get_running_loop", "asyncio.get_event_loop", "asyncio.run"), _STEP),
    **dict.fromkeys(("asyncio.to_thread", "threading.Thread", "threading.Timer", "multiprocessing.Process"), _THREAD),
    "concurrent.futures.thread.ThreadPoolExecutor": _THREAD,
    "concurrent.futures.process.ProcessPoolExecutor": _THREAD,
    **{f"subprocess.{name}": _STEP for name in ("run", "Popen", "call", "check_call", "check_output")},
    **dict.fromkeys(("os.system", "os.listdir", "os.scandir", "urllib.request.urlopen"), _STEP),
    **dict.fromkeys(("builtins.open", "builtins.input"), _STEP),
}
#: As `ACTS`: what they give depends on the process.
IDENTITIES: Final[Mapping[str, str]] = {
    "builtins.id": "the value itself, or durable.uuid4()",
    "builtins.hash": "the value itself, or hashlib: that of a str is another one in every process",
}


class Outside(NamedTuple):
    """One of the above."""

    name: str
    instead: str


class OutsideObjects:
    """Those of some names that are there, as objects."""

    def __init__(self, *tables: Mapping[str, str]) -> None:
        names = [Outside(name, instead) for table in tables for name, instead in table.items()]
        found = [(value, each) for each in names if (value := _imported(each.name)) is not None]
        self._functions = {value: each for value, each in found if isinstance(value, _FUNCTIONS)}
        self._others = {id(value): (value, each) for value, each in found if not isinstance(value, _FUNCTIONS)}
        #: By the identity of their code: the object that they must be methods of, if any.
        self._codes: dict[int, tuple[Any, Outside]] = {}
        for value, each in found:
            for code, owner in _codes_of(value):
                self._codes.setdefault(id(code), (owner, each))

    def named(self, value: Any) -> Outside | None:
        """What *value* is, if it is one of them."""
        if isinstance(value, _FUNCTIONS):
            return self._functions.get(value)
        known = self._others.get(id(value))
        return None if known is None or known[0] is not value else known[1]

    def begun(self, frame: types.FrameType) -> Outside | None:
        """What has just been called, if *frame* is of one that is written in Python."""
        code = frame.f_code
        known = self._codes.get(id(code))
        if known is None:
            return None
        owner, each = known
        return each if owner is None or frame.f_locals.get(code.co_varnames[0]) is owner else None


# Compared by what they are and are bound to, never by asking that.
_FUNCTIONS: Final = (types.BuiltinFunctionType, types.FunctionType, types.MethodType)


def _imported(name: str) -> Any:
    """The object of that name; None if its module is not imported, or does not have it."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        value: Any = sys.modules.get(".".join(parts[:count]))
        if value is not None:
            for part in parts[count:]:
                value = getattr(value, part, None)
            return value
    return None


def _codes_of(value: Any) -> Iterator[tuple[types.CodeType, Any]]:
    """The code of a function, with what it is bound to; of an object like `os.environ`, that of all its methods."""
    if isinstance(value, types.MethodType):
        yield value.__func__.__code__, value.__self__
    elif isinstance(value, types.FunctionType):
        yield value.__code__, None
    elif not isinstance(value, (type, types.BuiltinFunctionType)):
        for cls in type(value).__mro__:
            methods = [each for each in vars(cls).values() if isinstance(each, types.FunctionType)]
            yield from ((each.__code__, value) for each in methods)

"""
Named limits: how many may be inside at once, and how many may begin in a window of time.

Pure values, and the search for those that a set of definitions uses. Who waits and who is
inside is rows, see `slots`; the numbers are those of today's code.
"""

from __future__ import annotations

import inspect
import types
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Literal, TypeAlias, TypeVar

from attrs import field

from durable._core.light_frozen import late_frozen
from durable.errors import DefinitionError

T = TypeVar("T")

#: What a run does that finds no slot free.
LimitConflict: TypeAlias = Literal["wait", "reject", "replace"]

#: The whole numbers that SQLite keeps.
LEAST_WHOLE = -(2**63)
MOST_WHOLE = 2**63 - 1

_CONFLICTS = ("wait", "reject", "replace")


def _in_seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else value


@late_frozen
class Rate:
    """
    At most *count* in any window of *per* seconds: a sliding window, not one that starts anew each minute.

    Args:
        count: How many.
        per: Seconds, or a timedelta; kept as seconds.

    Raises:
        DefinitionError: One of the two is not a positive number.

    Example:
        >>> api = Limit("api", rate=Rate(100, per=60))  # at most 100 in any 60 seconds
    """

    count: int
    per: float = field(kw_only=True, converter=_in_seconds)

    def __attrs_post_init__(self) -> None:
        check_count("Rate: count", self.count)
        per: Any = self.per  # what users pass, whatever the annotation says
        if isinstance(per, bool) or not isinstance(per, (int, float)) or not 0 < per < float("inf"):
            msg = f"Rate: per must be a positive number of seconds, found {per!r}"
            raise DefinitionError(msg)


@late_frozen
class Limit:
    """
    A named throttle, shared by whatever names it: steps and jobs of all workflows, or whole runs.

    Given as ``limit=`` to `step` and `job`, an attempt holds a slot while it is running; to
    `workflow`, a run holds one from its beginning to its end, also while it is paused or blocked: others must not
    begin what it has half done; `Run.why` of those behind it names it. With ``limit_key=``, a function of the
    arguments, there is one such limit for each key (each customer, each host).

    Args:
        name: Known by it in the journal, and to `Engine(limits=)`.
        concurrency: How many are inside at once; None does not bound that.
        rate: How many begin in a window of time; None does not bound that.
        on_conflict: What a *run* does that finds no slot free: ``wait`` in line; ``reject``: its
            start raises `LimitReachedError`; ``replace``: the oldest is cancelled, and it begins
            once that has ended. A step always waits.

    Raises:
        DefinitionError: It limits nothing, or one of its arguments is invalid.

    Example:
        >>> api = Limit("api", concurrency=5, rate=Rate(100, per=60))
        >>> @job(limit=api)
        ... async def look_up(item: str) -> int:
        ...     return len(item)
        >>> async with Engine(":memory:", [look_up]) as engine:
        ...     await engine.run(look_up("tea"))
        3
    """

    name: str
    concurrency: int | None = field(default=None, kw_only=True)
    rate: Rate | None = field(default=None, kw_only=True)
    on_conflict: LimitConflict = field(default="wait", kw_only=True)

    def __attrs_post_init__(self) -> None:
        name: Any = self.name
        if not isinstance(name, str) or not name or not name.isprintable():
            msg = f"the name of a Limit must be a printable string, found {self.name!r}"
            raise DefinitionError(msg)
        where = f"Limit {self.name!r}"
        if self.concurrency is None and self.rate is None:
            msg = f"{where} limits nothing: give it concurrency=, rate=Rate(count, per=seconds), or both"
            raise DefinitionError(msg)
        if self.concurrency is not None:
            check_count(f"{where}: concurrency", self.concurrency)
        check_rate(where, self.rate)
        if self.on_conflict not in _CONFLICTS:
            msg = f"{where}: on_conflict must be one of {', '.join(map(repr, _CONFLICTS))}, found {self.on_conflict!r}"
            raise DefinitionError(msg)
        if self.on_conflict == "replace" and self.concurrency is None:
            msg = f"{where}: on_conflict='replace' needs concurrency=, since a rate has nobody inside to replace"
            raise DefinitionError(msg)


#: How definitions name one: the limit itself, or its name in `Engine(limits=)`.
LimitRef: TypeAlias = Limit | str


def check_rate(where: str, rate: object) -> None:
    """Refuse what is no `Rate`."""
    if rate is not None and not isinstance(rate, Rate):
        msg = f"{where}: rate must be a Rate(count, per=seconds), found {rate!r}"
        raise DefinitionError(msg)


def check_reference(where: str, limit: Any, limit_key: Any) -> None:
    """Refuse `limit=` and `limit_key=` that do not fit each other, or anything."""
    if limit is not None and not isinstance(limit, (Limit, str)):
        msg = f"{where}: limit must be a Limit, or the name of one in Engine(limits=), found {limit!r:.80}"
        raise DefinitionError(msg)
    if limit_key is not None and (limit is None or not callable(limit_key)):
        found = "no limit=" if limit is None else f"{limit_key!r:.80}"
        msg = f"{where}: limit_key is a function of the arguments that tells apart the keys of limit=; found {found}"
        raise DefinitionError(msg)


def as_listed(option: str, given: Any, kind: type[T]) -> tuple[T, ...]:
    """What `Engine` was given as a list of *kind*, as a tuple; refuses anything else."""
    hint = f": put it in a list, {option}=[...]" if isinstance(given, kind) else ""
    if hint or not isinstance(given, Iterable):
        msg = f"Engine({option}=) takes a list of {kind.__name__} objects, found {given!r:.80}{hint}"
        raise DefinitionError(msg)
    found: tuple[Any, ...] = tuple(given)
    for each in found:
        if not isinstance(each, kind):
            msg = f"Engine({option}=) takes {kind.__name__} objects, found {each!r:.80}"
            raise DefinitionError(msg)
    return found


def limit_name(limit: LimitRef) -> str:
    """The name of a limit, however it was given."""
    return limit if isinstance(limit, str) else limit.name


def check_count(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{what} must be a whole number of at least 1, found {value!r}"
        raise DefinitionError(msg)
    check_whole(what, value)


def check_whole(what: str, value: object) -> None:
    """
    Nothing, if *value* is a whole number that SQLite can keep.

    Raises:
        DefinitionError: It is not; the message names the range.
    """
    if type(value) is not int:
        msg = f"{what} must be a whole number, found {value!r:.60}"
        raise DefinitionError(msg)
    if not LEAST_WHOLE <= value <= MOST_WHOLE:
        msg = f"{what} must be a whole number from {LEAST_WHOLE} to {MOST_WHOLE}, found {value.bit_length()} bits"
        raise DefinitionError(msg)


# --- collecting them -------------------------------------------------------------------------------


def collect_limits(definitions: Iterable[Any], listed: Iterable[Any]) -> dict[str, Limit]:
    """
    The limits in force: those *listed*, which come first, and those that *definitions* use.

    Steps are found where the code of workflows (and of plain functions that they call) names them.
    One that is out of sight joins when it is first asked for.

    Raises:
        DefinitionError: Two different limits have one name, or a name stands for none.
    """
    given: dict[str, Limit] = {}
    for limit in as_listed("limits", listed, Limit):
        _add(given, limit, "Engine(limits=)")
    found: dict[str, Limit] = {}
    named: dict[str, Any] = {}
    for definition in with_steps(definitions):
        used: Any = definition.options.limit
        if isinstance(used, Limit):
            if used.name not in given:
                _add(found, used, repr(definition))
        elif used is not None:
            named[used] = definition
    for name, definition in named.items():
        if name not in given and name not in found:
            msg = f"limit {name!r} of {definition!r} is not known: list it, Engine(limits=[Limit({name!r}, ...)])"
            raise DefinitionError(msg)
    return found | given


def _add(found: dict[str, Limit], limit: Limit, where: str) -> None:
    other = found.setdefault(limit.name, limit)
    if other != limit:
        msg = (
            f"two different limits are called {limit.name!r}: {other!r}, and in {where} {limit!r}. "
            "Share one Limit object, or say in Engine(limits=) which it is"
        )
        raise DefinitionError(msg)


def with_steps(definitions: Iterable[Any]) -> Iterator[Any]:
    """*definitions*, and the steps that their code names, directly or in plain functions that it names."""
    pending: deque[Any] = deque(definitions)
    seen: set[int] = set()
    while pending:
        found = pending.popleft()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, types.FunctionType):
            fn = found
        elif _is_definition(found):
            yield found
            if found.kind != "workflow":
                continue
            fn = found.fn
        else:
            continue
        pending.extend(_named_in(fn))


def _is_definition(found: Any) -> bool:
    """By its class, since a mock in the place of a step has every attribute."""
    return isinstance(getattr(type(found), "kind", None), str) and hasattr(found, "options")


def _named_in(fn: types.FunctionType) -> Iterator[Any]:
    """Definitions and functions of the program that the code of *fn* names."""
    codes = [fn.__code__]
    names: set[str] = set()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    for cell in fn.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # named, but not made yet, so it cannot be looked at
            continue
    module = inspect.getmodule(fn)
    for name in names:
        value = fn.__globals__.get(name)
        if isinstance(value, types.ModuleType) and not value.__name__.startswith("durable."):
            yield from (vars(value)[each] for each in names if _is_definition(vars(value).get(each)))
        elif not isinstance(value, types.FunctionType) or value.__module__ == getattr(module, "__name__", None):
            yield value


def numbers(limit: Limit) -> tuple[str, int | None, int | None, float | None, str]:
    """*limit* as a row: name, concurrency, count, seconds, what a conflict means."""
    count, per = (None, None) if limit.rate is None else (limit.rate.count, limit.rate.per)
    return limit.name, limit.concurrency, count, per, limit.on_conflict

"""
Requests and their results as plain data, by the annotations of their fields.

The codec's rules, but stricter, since the other side is another program: an object may have no keys but
the fields of its class, numbers are such as SQLite takes, and a new run says nothing that is the owner's
to say. Bytes stand in the data as they are: `default` and `revive` turn them into JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, get_args

from attrs import NOTHING, evolve
from attrs import fields as attrs_fields

from durable._core.codec.hints import class_hints
from durable._core.codec.resolver import Rules
from durable._core.codec.rule import Refusal, Rule, key_path, misfit, mismatch, qualified
from durable._core.recorded.export_format import Header, RunHistory, header_line, lines_of
from durable._core.recorded.export_reader import read_export
from durable._shell.requests.request import Request
from durable._shell.rows.rows import NewRun
from durable._shell.rows.templates import checked, to_plain
from durable.errors import UsageError

R = TypeVar("R")

#: Containers within containers: none but those of the classes' own fields.
DEPTH: Final = 16
#: Integers of SQLite have 64 bits.
_INT_BOUND: Final = 2**63


def plain_result(request: Request[R], result: R) -> Any:
    """What *request* resulted in, as plain data."""
    return RULES.get(_result_type(request)).encode(result, DEPTH)


def result_from(request: Request[R], plain: Any) -> R:
    """
    The result of *request* that `plain_result` wrote.

    Raises:
        Refusal: It is none.
    """
    result: R = RULES.get(_result_type(request)).decode(plain)
    return result


def _result_type(request: Request[Any]) -> Any:
    """What its class says, as ``Request[list[str]]``."""
    (result,) = get_args(type(request).__orig_bases__[0])  # type: ignore[attr-defined]  # every generic's child has it
    return result


# --- rules ---------------------------------------------------------------------------------------


def _record(type_: Any, cls: Any, get: Callable[[Any], Rule]) -> Rule:
    """A class of ours: an object with a key for each field that has not its default."""
    hints, label = class_hints(type_), qualified(type_).rpartition(".")[2]
    parts = {each.name: (get(hints[each.name]), each.default) for each in attrs_fields(cls)}

    def encode(value: Any, depth: int) -> Any:
        out: dict[str, Any] = {}
        for name, (rule, standard) in parts.items():
            item = getattr(value, name)
            if item != standard:
                with _at(name):
                    out[name] = rule.encode(item, depth)
        return out

    def decode(plain: Any) -> Any:
        if type(plain) is not dict:
            raise misfit(plain, label)
        found: dict[str, Any] = {}
        for name, item in plain.items():
            with _at(name):
                if name not in parts:
                    raise Refusal(f"no such field of {label}", "found one")
                found[name] = parts[name][0].decode(item)
        for name, (rule, standard) in parts.items():
            if name not in found and standard is NOTHING:
                with _at(name):
                    raise Refusal(rule.name, "found nothing")
        return cls(**found)

    return Rule(label, encode, decode, (cls,), frozenset({dict}))


@contextmanager
def _at(name: str) -> Iterator[None]:
    """Where a refusal is told from."""
    try:
        yield
    except Refusal as refusal:
        refusal.path.append(key_path(name))
        raise


def _as_it_is(cls: type[Any]) -> Rule:
    def encode(value: Any, _: Any) -> Any:
        if type(value) is not cls:
            raise mismatch(value, cls.__name__)
        return value

    def decode(plain: Any) -> Any:
        if type(plain) is not cls:
            raise misfit(plain, cls.__name__)
        return plain

    return Rule(cls.__name__, encode, decode, (cls,), frozenset({cls}))


def _bounded(rule: Rule) -> Rule:
    def decode(plain: Any) -> Any:
        number = rule.decode(plain)
        if not -_INT_BOUND <= number < _INT_BOUND:
            raise Refusal("an integer of 64 bits", "found a larger one")
        return number

    return evolve(rule, decode=decode)


def _decode_run(plain: Any) -> NewRun:
    try:
        return checked(plain)
    except UsageError as error:
        raise Refusal("a new run", str(error)) from error


def _encode_histories(histories: tuple[RunHistory, ...], _: Any) -> list[str]:
    return [header_line(Header("", 0, "")), *(line for each in histories for line in lines_of(each))]


def _decode_histories(plain: Any) -> tuple[RunHistory, ...]:
    lines: list[str] = RULES.get(list[str]).decode(plain)
    return tuple(read_export((line.encode() for line in lines), "the request"))


#: How values of each annotation are written and checked.
RULES: Final = Rules(_record)
RULES.known[int] = _bounded(RULES.known[int])
RULES.known[bytes] = _as_it_is(bytes)
RULES.known[NewRun] = Rule("NewRun", lambda run, _: to_plain(run), _decode_run, (NewRun,), frozenset({dict}))
# As the lines of a file, and as strictly checked as those.
RULES.known[tuple[RunHistory, ...]] = Rule(
    "exported runs", _encode_histories, _decode_histories, (tuple,), frozenset({list})
)

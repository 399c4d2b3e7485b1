"""
Retry policies: which failures deserve another attempt, and after how long.

Pure: the caller gives the time passed and the jitter's source, so tests and replay get the
same answer. A delay is only ever a *durable timer*: it survives restarts and frees the run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import isfinite
from random import Random
from typing import Annotated, Any, Final, TypeAlias

from attrs import evolve, field

from durable._core.codec.class_names import aliases_of, bases_of, module_of, qualname_of
from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.codec.exceptions.parts import attribute
from durable._core.codec.exceptions.safe_text import one_line, shown
from durable._core.codec.json_text import dumps
from durable._core.codec.records import record_codec
from durable._core.codec.rule import Refusal
from durable._core.codec.rules.scalars import PLAIN
from durable._core.light_frozen import late_frozen, light_frozen
from durable.errors import (
    CapExceededError,
    DecodeError,
    DryRunError,
    EncodeError,
    Fatal,
    RetryAfter,
    Snooze,
    UsageError,
)

#: Which exceptions are retried: a type, a tuple of types, or a predicate.
RetryOn: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


def is_number(value: object) -> bool:
    """Whether *value* can be a number of seconds."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(_: object, field_: object, value: float | None) -> None:
    if value is not None and not (is_number(value) and value >= 0):
        msg = f"{getattr(field_, 'name', 'value')} must be a number and not negative, found {value!r}"
        raise ValueError(msg)


@late_frozen
class Retry:
    """
    How often, and how long apart, a failing function is tried again.

    Exponential back-off with jitter, after the common practice described in the AWS
    builders' library ("Timeouts, retries and backoff with jitter").

    Args:
        attempts: Attempts in all, the first included; None is unlimited. All that began are counted, those that the
            death of the process cut off, too; but not those that a closing engine did, nor those that snoozed.
        on: What is retried: an exception type, a tuple of them, or a predicate.
        delay: Seconds before the second attempt.
        factor: Each further delay is this many times the one before.
        max_delay: No delay is longer, in seconds.
        jitter: Share of each delay, 0 to 1, that is random.
        max_elapsed: Give up when the next attempt would start later than this many seconds
            after the first one; None: never.

    Example:
        >>> policy = Retry(attempts=5, on=ConnectionError, delay=1.0, factor=2.0, max_delay=60.0)
        >>> policy.attempts
        5
    """

    attempts: int | None = field(default=3)
    on: RetryOn = field(default=Exception, kw_only=True)
    delay: float = field(default=1.0, kw_only=True, validator=_positive)
    factor: float = field(default=2.0, kw_only=True, validator=_positive)
    max_delay: float = field(default=60.0, kw_only=True, validator=_positive)
    jitter: float = field(default=0.1, kw_only=True, validator=_positive)
    max_elapsed: float | None = field(default=None, kw_only=True, validator=_positive)

    @attempts.validator  # type: ignore[attr-defined,unused-ignore]  # pyright: ignore  # noqa: PGH003 - attrs
    def _at_least_one(self, _: object, value: int | None) -> None:
        if value is not None and not (type(value) is int and value >= 1):
            msg = f"attempts counts the first try too, so it must be a whole number of at least 1, found {value!r}"
            raise ValueError(msg)

    @on.validator  # type: ignore[attr-defined,unused-ignore]  # pyright: ignore  # noqa: PGH003 - attrs
    def _retriable(self, _: object, value: Any) -> None:
        types = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(each, type) and issubclass(each, BaseException) for each in types) and (
            isinstance(value, type) or not callable(value) or inspect.iscoroutinefunction(value)  # which is always true
        ):
            msg = f"Retry(on=) takes an exception type, a tuple of them, or a predicate, found {value!r:.60}"
            raise ValueError(msg)

    def wants(self, error: Exception) -> bool:
        """Whether *error* is of a kind that this policy retries."""
        if isinstance(self.on, (type, tuple)):
            return issubclass(type(error), self.on)
        return self.on(error)

    def delay_after(self, attempt: int) -> float | None:
        """
        Seconds to wait once *attempt* (counted from 1) has failed; None to give up.

        Jitter is added by `plan`: this method is pure.

        Raises:
            ValueError: If *attempt* is less than 1.
        """
        if attempt < 1:
            msg = f"attempts are counted from 1, found {attempt!r}"
            raise ValueError(msg)
        if self.attempts is not None and attempt >= self.attempts:
            return None
        try:
            return float(min(self.max_delay, self.delay * self.factor ** (attempt - 1)))
        except OverflowError:
            # a large power of the factor: more than max_delay, since it is more than a float can hold
            return float(self.max_delay)


def recorded(policy: Retry) -> str:
    """
    *policy* as it is recorded with a run, which outlives the program that started it.

    Raises:
        UsageError: Its `on` is a predicate: functions cannot be recorded.
    """
    types = policy.on if isinstance(policy.on, tuple) else (policy.on,)
    if not all(isinstance(each, type) for each in types):
        msg = (
            "options(retry=Retry(on=...)) of a run takes exception types: a predicate can only stand on its definition"
        )
        raise UsageError(msg)
    plain = {name: getattr(policy, name) for name in _NUMBERS}
    return dumps({**plain, "on": [_qualified(each) for each in types]})


def from_record(text: str) -> Retry:
    """
    The policy that `recorded` was given. Exceptions are identified by their names: nothing is imported.

    Raises:
        DecodeError: *text* is not a policy.
    """
    found: PolicyRecord = _RECORDS.decode(text, PolicyRecord, where="a recorded retry policy")
    names = frozenset(found.on)
    numbers = {name: getattr(found, name) for name in _NUMBERS}
    try:
        return Retry(on=lambda error: not names.isdisjoint(_names(type(error))), **numbers)
    except ValueError as error:
        raise DecodeError("a recorded retry policy", "$", "numbers of a policy", str(error)) from error


def _names(kind: type) -> set[str]:
    """The names of a class and its bases, older ones included."""
    bases = bases_of(kind)
    return {_qualified(each) for each in bases} | {
        alias.replace(":", ".") for each in bases for alias in aliases_of(each)
    }


_NUMBERS = ("attempts", "delay", "factor", "max_delay", "jitter", "max_elapsed")


@light_frozen
class PolicyRecord:
    """A policy in the text: exceptions are names."""

    attempts: int | None
    delay: float
    factor: float
    max_delay: float
    jitter: float
    max_elapsed: float | None
    on: list[str]


_RECORDS: Final = record_codec(closed=True)


def _read_text(plain: Any) -> Any:
    text = PLAIN[str].decode(plain)
    try:
        from_record(text)
    except DecodeError as error:
        refusal = Refusal(error.expected, error.reason)
        refusal.path.append(error.path[1:])
        raise refusal from error
    return text


RECORDED_RETRY: Final = evolve(PLAIN[str], decode=_read_text)
#: A policy as it is recorded.
RecordedRetry: TypeAlias = Annotated[str, RECORDED_RETRY]


def _qualified(kind: Any) -> str:
    return f"{module_of(kind)}.{qualname_of(kind)}"


#: One attempt and no more: the default, since only the user knows what is safe to repeat.
NEVER = Retry(attempts=1)


def attempts_of(policy: Retry) -> int | None:
    """How many attempts *policy* allows; None: any number, as where there is no policy, as far as crashes go."""
    return None if policy is NEVER else policy.attempts


def snooze_of(error: Exception) -> float | None:
    """The seconds for which *error* asks, if it is a `Snooze` for a number of them."""
    if not issubclass(type(error), Snooze):
        return None
    seconds: Any = attribute(error, "seconds")
    return max(0.0, float(seconds)) if is_number(seconds) and isfinite(seconds) else None


def as_retry(value: Retry | int | None) -> Retry:
    """`retry=5` means five attempts in all; None means no retry."""
    if value is None:
        return NEVER
    if isinstance(value, Retry):
        return value
    return Retry(attempts=value)


#: What no other attempt can mend.
_NEVER_RETRIED: Final = (CapExceededError, DryRunError, EncodeError, Fatal)


def next_attempt(
    policy: Retry, error: Exception, *, failures: int, elapsed: float, seed: str
) -> tuple[float | None, str]:
    """As `plan`; and a note for *error*, if the policy's own predicate raised, so that there is no other attempt."""
    try:
        return plan(policy, error, failures=failures, elapsed=elapsed, seed=seed), ""
    except BaseException as broken:
        if came_from_outside(broken):
            raise
        return None, f"the retry policy itself raised {one_line(broken)}, so this was not retried"


def plan(policy: Retry, error: Exception, *, failures: int, elapsed: float, seed: str) -> float | None:
    """
    Seconds until the next attempt after *error*, or None to give up.

    Args:
        policy: The policy in force.
        error: What the attempt raised. `Fatal`, and values that cannot be recorded or are over a cap,
            are never retried; `RetryAfter` replaces the delay but uses up an attempt. Without a policy there
            is no number of those.
        failures: Attempts so far that failed, or were cut off by a crash, this one included (those that a
            shutdown interrupted are not counted).
        elapsed: Seconds since the first attempt began.
        seed: What the jitter is derived from, so that it can be reproduced.
    """
    if issubclass(type(error), _NEVER_RETRIED):
        return None
    if issubclass(type(error), RetryAfter):
        attempts = attempts_of(policy)
        if attempts is not None and failures >= attempts:
            return None
        seconds: Any = attribute(error, "seconds")
        if not is_number(seconds) or not isfinite(seconds):
            msg = f"RetryAfter takes a number of seconds, found {shown(seconds, 40)}"
            raise ValueError(msg)
        delay: float | None = max(0.0, seconds)
    elif policy.attempts == 1 or not policy.wants(error):
        return None
    else:
        delay = policy.delay_after(failures)
    if delay is None:
        return None
    if policy.jitter and not issubclass(type(error), RetryAfter):
        delay *= 1 + policy.jitter * (2 * Random(seed).random() - 1)  # noqa: S311 - spreads load, guards nothing
    if policy.max_elapsed is not None and elapsed + delay > policy.max_elapsed:
        return None
    return delay

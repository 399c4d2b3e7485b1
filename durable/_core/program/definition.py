"""
Definitions: a function, its name, its options, and the types of its arguments and result.

What ops hold. The classes that users meet, which make ops when they are called, are in `functions`.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial, update_wrapper
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar

from durable._core.codec.codec import Codec, ValueCodec
from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.codec.exceptions.safe_text import one_line, shown
from durable._core.codec.signatures import ArgumentTypes, argument_types, result_type, yielded_type
from durable._core.light_frozen import light_frozen
from durable._core.policies.key_functions import KeyFunction
from durable._core.policies.limits import LimitRef
from durable._core.policies.retry import NEVER, Retry
from durable._core.run_ids import RESERVED_SIGNS
from durable.errors import CapExceededError, DefinitionError, UsageError

P = ParamSpec("P")
R = TypeVar("R")

#: What a step does about an attempt that the death of the process cut off.
OnCrash: TypeAlias = Literal["rerun", "raise", "block"]
#: What becomes of a step that kills the process.
OnPoison: TypeAlias = Literal["fail", "block"]
#: What happens when the key of a new run belongs to another: see `Engine.start`.
OnConflict: TypeAlias = Literal["join", "reject", "replace", "rerun", "rerun-failed", "coalesce"]

#: The reserved key that means "derive the key from the arguments".
by_arguments: Any = object()

#: Longest name of a definition, queue, signal, key or label. Names are typed by people and
#: repeated in every event: Temporal allows 1,000 characters, SQS 80 for a queue.
MAX_NAME_LENGTH = 200
#: Longest id and key: these may be made of other systems' ids.
MAX_KEY_LENGTH = 500
#: Characters of what is not a name, in errors.
_LONGEST_SHOWN = 80


def check_name(what: str, value: object, limit: int = MAX_NAME_LENGTH) -> str:
    """*value*, if it is a usable name; who uses it reads it in shells, logs and file listings."""
    found: Any = value  # asked by its type: what an object says of its own class may be untrue
    name = str.__str__(found) if issubclass(type(found), str) else ""
    if not name:
        msg = f"{what} must be a non-empty string, found {shown(value, _LONGEST_SHOWN)}"
        raise DefinitionError(msg)
    if len(name) > limit:
        raise CapExceededError(f"{what} {name[:40]!r}...", "length", len(name), limit)
    if not name.isprintable():
        msg = f"{what} must be printable, found {name!r}"
        raise DefinitionError(msg)
    return name


def check_run_id(value: object) -> str:
    """
    *value*, if a caller may choose it as the id of a run.

    Not one that the engine makes by itself (see `run_ids`). Whoever took such an id first would stand in the way of
    the run that it belongs to.

    Raises:
        UsageError: It may not.
    """
    found = check_name("a run id", value, MAX_KEY_LENGTH)
    reserved = next((sign for sign in RESERVED_SIGNS if sign in found), None)
    if reserved is not None:
        msg = f"a run id must not contain {reserved!r}, found {found!r}: the engine makes such ids for children, "
        msg += "successors, members of batches and ticks of schedules. Choose another separator, e.g. '-' or '.'"
        raise UsageError(msg)
    return found


# --- options ---------------------------------------------------------------------------------


@light_frozen
class StepOptions:
    """Options of `@step` and `@transaction`."""

    retry: Retry = NEVER
    timeout: float | None = None
    on_crash: OnCrash = "rerun"
    on_poison: OnPoison = "fail"
    thread: bool = True
    process: bool = False
    limit: LimitRef | None = None
    limit_key: Callable[..., str] | None = None
    aliases: tuple[str, ...] = ()
    codec: ValueCodec | None = None
    stream: bool = False
    keep_memos: bool = True


@light_frozen
class RunOptions:
    """Options of `@workflow` and `@job`."""

    version: int = 1
    queue: str = "default"
    timeout: float | None = None
    key: Callable[..., str] | Any = None
    retry: Retry = NEVER
    priority: int = 0
    labels: Mapping[str, str] = types.MappingProxyType({})
    thread: bool = True
    process: bool = False
    on_crash: OnCrash = "rerun"
    on_poison: OnPoison = "fail"
    key_ttl: float | None = None
    on_conflict: OnConflict = "join"
    limit: LimitRef | None = None
    limit_key: Callable[..., str] | None = None
    aliases: tuple[str, ...] = ()
    stream: bool = False
    keep_memos: bool = True


class Definition(Generic[P, R]):
    """What all definitions share: a function, its name, and the types of its arguments."""

    kind: str = "definition"
    _skipped_parameters = 0
    #: Whether it may be an async generator whose values are a stream of the run.
    may_stream = False
    #: Whether that returns the last value, rather than all.
    keeps_last = False

    def __init__(self, fn: Callable[..., Any], name: str | None, aliases: Iterable[str] = ()) -> None:
        if not hasattr(fn, "__code__"):
            raise DefinitionError(_no_function(self.kind, fn))
        self.fn = self._decorated = fn
        #: Its name in the journal: `name=` if given, else the function's own.
        self.name = check_name(f"the name of a {self.kind}", name or fn.__name__)
        #: What errors call its result.
        self.result_place = f"result of {self.kind} {self.name!r}"
        #: Names that it had in older code: what was recorded under them is its own.
        self.aliases = _checked_aliases(self.kind, self.name, aliases)
        #: What tells the keys of its limit apart, see `limit_key_for`.
        self.limit_key: Callable[..., str] | None = None
        #: By the option that they were given as; made late, as `arguments`.
        self._key_functions: dict[str, KeyFunction] = {}
        wrapper: Any = self
        update_wrapper(wrapper, fn)

    @property
    def sort(self) -> str:
        """The older name of `kind`, until 1.0."""
        return self.kind

    @property
    def fn(self) -> Callable[..., Any]:
        """The plain function. A test may put another one in its place; types stay those of the decorated one."""
        return self._fn

    @fn.setter
    def fn(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        #: What is called in its place: of a stream, what emits its values.
        self.body = self._streaming(fn) if self.may_stream and inspect.isasyncgenfunction(fn) else fn
        self.is_async = inspect.iscoroutinefunction(self.body)

    @fn.deleter
    def fn(self) -> None:
        """The decorated function is back: how `unittest.mock.patch.object(charge, "fn", ...)` takes its mock away."""
        self.fn = self._decorated

    def _streaming(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """What emits what *fn*, an async generator, yields."""
        raise NotImplementedError

    @cached_property
    def arguments(self) -> ArgumentTypes:
        """The types of its parameters (made late: annotations may name things defined below)."""
        return argument_types(self._decorated, skip=self._skipped_parameters)

    @cached_property
    def signature(self) -> inspect.Signature:
        """Its parameters, without what the engine passes."""
        return inspect.signature(self._decorated)

    @cached_property
    def result(self) -> Any:
        """The type of its result."""
        if not (self.may_stream and inspect.isasyncgenfunction(self._decorated)):
            return result_type(self._decorated)
        yielded = yielded_type(self._decorated)
        return yielded | None if self.keeps_last else types.GenericAlias(list, (yielded,))

    def limit_key_for(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> str:
        """
        What `limit_key` makes of a call's arguments, given by position or by name.

        Raises:
            DefinitionError: It failed, or made no usable key.
        """
        fn = self.limit_key
        return "" if fn is None else self._key_made("limit_key", fn, tuple(args), kwargs)

    def _key_made(self, option: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """
        What *fn*, which was given as *option*, makes of a call's arguments.

        Raises:
            DefinitionError: It failed, or made no usable key.
        """
        try:
            made = self._key_functions.get(option)
            if made is None or made.fn is not fn:
                made = self._key_functions[option] = KeyFunction(fn, self.arguments)
            key = made(args, kwargs)
        except BaseException as error:
            if came_from_outside(error):
                raise
            msg = f"{option} of {self.kind} {self.name!r} raised {one_line(error)}"
            raise DefinitionError(msg) from error
        return check_name(f"the {option} of {self.kind} {self.name!r}", key, MAX_KEY_LENGTH)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r}>"

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if isinstance(instance, type):  # `classmethod` asks for it so
            msg = (
                f"@{self.kind} {self.name!r} is a class method of {instance.__name__}: a journal knows no classes, so "
                "definitions are plain functions. Move it out of the class, or make it a @staticmethod, and pass what "
                "it needs as arguments"
            )
            raise DefinitionError(msg)
        msg = (
            f"@{self.kind} {self.name!r} is a method of {type(instance).__name__}: a journal outlives instances, so "
            "definitions are plain functions. Move it out of the class and pass what it needs as arguments; what "
            "cannot be recorded (a client, a pool) is reached from inside the function"
        )
        raise DefinitionError(msg)


def _no_function(kind: str, found: object) -> str:
    """What to do instead about *found*, which was decorated and is not a function."""
    match found:
        case Definition():
            return f"{found!r} is decorated already: @{kind} takes the plain function, {found.name}.fn"
        case staticmethod():
            return f"@{kind} stands above @staticmethod: write @staticmethod above @{kind}"
        case classmethod() | property():
            what = type(found).__name__
            return f"@{kind} decorates a plain function, found a {what}: move it out of the class"
        case partial():
            what = getattr(found.func, "__name__", "function")
            return (
                f"@{kind} decorates a function, found a partial of {what}: write a function that calls it, so that the "
                "journal has a name for it (in a workflow, call(partial, ...) works as it is)"
            )
        case type():
            return f"@{kind} decorates a function, found the class {found.__name__}: write a function that makes one"
        case _:
            around = (
                ": write a function that calls it, so that the journal has a name for it" if callable(found) else ""
            )
            return f"@{kind} decorates a function, found {type(found).__name__} {found!r:.80}{around}"


class StepDefinition(Definition[P, R]):
    """What steps and transactions share: a function that runs inside a run."""

    options: StepOptions

    def __init__(self, fn: Callable[..., Any], name: str | None, options: StepOptions) -> None:
        super().__init__(fn, name, options.aliases)
        self.options = options
        streams = inspect.isasyncgenfunction(fn)
        if inspect.isgeneratorfunction(fn) or (streams and not self.may_stream):
            msg = (
                f"{self.kind} {self.name!r} is {'an async' if streams else 'a'} generator: what it returns is recorded "
                "as one value, so return a list; or stream what it yields, as an `async def` with @step; if it is to "
                "ask for steps and jobs, await their ops in a @workflow"
            )
            raise DefinitionError(msg)

    def codec_of(self, codec: Codec) -> Codec:
        """What records its values: *codec*, the engine's, unless it brings hooks of its own."""
        own = self.options.codec
        return codec if own is None else codec.with_hooks(own)


class RunDefinition(Definition[P, R]):
    """What workflows and jobs share: a run of their own."""

    options: RunOptions
    #: (statuses that it is for, hook), in the order of their decoration.
    hooks: list[tuple[frozenset[str], Callable[..., Any]]]

    def codec_of(self, codec: Codec) -> Codec:
        """What records its values: *codec*, the engine's."""
        return codec

    def key_for(self, op: Any, digest: Callable[[], str]) -> str | None:
        """
        The idempotency key of *op*: its own, or what the definition's `key` makes of its arguments.

        Raises:
            DefinitionError: That function failed, or made no usable key.
        """
        key = op.given.key if op.given.key is not None else self.options.key
        if key is None:
            return None
        if key is by_arguments:
            return f"{self.name}:{digest()}"
        if callable(key):
            return self._key_made("key", key, op.args, op.kwargs)
        return check_name(f"the key of {self.kind} {self.name!r}", key, MAX_KEY_LENGTH)


def _checked_aliases(kind: str, name: str, aliases: Iterable[str]) -> tuple[str, ...]:
    if isinstance(aliases, str):
        msg = f"aliases of {kind} {name!r} are a tuple of names, found the string {aliases!r}: write ({aliases!r},)"
        raise DefinitionError(msg)
    return tuple(check_name(f"an alias of {kind} {name!r}", alias) for alias in aliases)


def check_labels(where: str, labels: Mapping[str, str]) -> None:
    """Labels are short strings to short strings: they are for filters, not for payloads."""
    found: Mapping[str, Any] = labels  # what users pass, whatever the annotation says
    for name, value in found.items():
        check_name(f"a label of {where}", name)
        if not isinstance(value, str) or len(value) > MAX_NAME_LENGTH:
            msg = f"label {name!r} of {where} must be a string of at most {MAX_NAME_LENGTH} characters, found {value!r}"
            raise DefinitionError(msg)

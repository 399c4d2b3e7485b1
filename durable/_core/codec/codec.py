"""
Values to JSON text and back, by the annotation of the code that asked for them.

Every value crosses this module before a workflow sees it, the first time as on replay, so
that both see the same. Promises: what was encoded comes back equal, or it was refused with
an `EncodeError` (or `CapExceededError`) that names the place in the value; reading raises
`DecodeError` and nothing else, whatever the bytes; no record causes an import, and nothing
is pickled. Pure and synchronous. The way in is `Codec`; which rule converts a value by its
annotation is decided in ``resolver``, and ``rule`` says what a rule is.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from durable._core.codec.agreement import by_value, lenient
from durable._core.codec.concealing import conceal, encrypts, reveal
from durable._core.codec.digests import digest_of, fits
from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.codec.exceptions.safe_text import Ask, ask_directly
from durable._core.codec.json_text import dumps, dumps_sorted, loads, quote, scan
from durable._core.codec.resolver import Rules
from durable._core.codec.rule import Refusal, Rule, TooDeep, check_depth, qualified, reason_of
from durable._core.codec.signatures import ArgumentTypes
from durable._core.codec.value_types import ValueType, rules_of
from durable.errors import CapExceededError, DecodeError, EncodeError

Payload: TypeAlias = str | bytes
"""JSON text; bytes only where the user's hooks have transformed it."""

#: Largest recorded value. A journal is for decisions and references, files go elsewhere.
MAX_BYTES: Final = 1_048_576
#: Deepest recorded value: far below the interpreter's recursion limit, above any sane record.
MAX_DEPTH: Final = 64

_SMALL: Final = 2**63


class ValueCodec(Protocol):
    """
    Hooks around the recorded text: compression, encryption, redaction.

    ``decode`` must undo ``encode``, and must still read what older versions wrote. Hooks that encrypt nothing say so,
    ``encrypts = False``: then messages of errors and the like are recorded as they are. Those that do may have a
    ``digest_key``, up to 64 secret bytes: without it, short arguments can be found out by their digests.
    """

    def encode(self, data: bytes) -> bytes: ...

    def decode(self, data: bytes) -> bytes: ...


class _OwnHooks:
    """
    The hooks of a definition. What a person or a fork gave in place of its value was written with the engine's.
    """

    def __init__(self, own: ValueCodec, engines: ValueCodec | None) -> None:
        self._own = own
        self._engines = engines

    def encode(self, data: bytes) -> bytes:
        return self._own.encode(data)

    def decode(self, data: bytes) -> bytes:
        try:
            return self._own.decode(data)
        except Exception:
            if self._engines is None:
                raise
            return self._engines.decode(data)


class Codec:
    """
    Converts values; holds the rules for the annotations it has seen, and nothing else.

    Args:
        hooks: Applied to the UTF-8 text on its way out and in.
        max_bytes: Cap on the text, in bytes, before the hooks.
        max_depth: Cap on containers within containers.
        rules: Other ones than the usual, see `records`.
        types: Those of the program's own.
        asking: Gives the way in which one exception that is recorded is asked for its texts; see `Ask`.
    """

    def __init__(
        self,
        hooks: ValueCodec | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        max_depth: int = MAX_DEPTH,
        rules: Rules | None = None,
        types: Iterable[ValueType[Any]] = (),
        asking: Callable[[], Ask] = lambda: ask_directly,
    ) -> None:
        self.asking = asking
        self._hooks = hooks
        self._digest_key: bytes | None = getattr(hooks, "digest_key", None)
        self._max_bytes = max_bytes
        #: Of as many characters no text is over the cap, whatever they are.
        self._short = max_bytes // 4
        self._max_depth = max_depth
        own = rules_of(types)
        self._rules = rules or Rules(own)
        self._known = self._rules.known
        self._by_value = by_value(self._rules.get)
        #: For records of another form than their annotation asks for; none where the rules are not the usual.
        self._lenient = Rules(own, finish=lenient) if rules is None else None
        #: By the hooks of definitions that have some of their own.
        self._with_hooks: dict[int, Codec] = {}

    @property
    def hooks(self) -> ValueCodec | None:
        """The hooks on the bytes of values; None if there are none."""
        return self._hooks

    @property
    def max_bytes(self) -> int:
        """Cap on the text of one value."""
        return self._max_bytes

    def take_caps(self, max_bytes: int, max_depth: int) -> None:
        """Refuse by other caps from now on: those of the journal that is written to."""
        for each in (self, *self._with_hooks.values()):
            each._max_bytes, each._short, each._max_depth = max_bytes, max_bytes // 4, max_depth  # noqa: SLF001 - its own

    def with_hooks(self, hooks: ValueCodec) -> Codec:
        """The same with *hooks* in place of its own, for the values of a definition that brings them."""
        found = self._with_hooks.get(id(hooks))
        if found is None:
            found = self._with_hooks[id(hooks)] = copy.copy(self)
            found._hooks = _OwnHooks(hooks, self._hooks)  # noqa: SLF001 - of its own class
        return found

    def rule(self, type_: Any) -> Rule:
        """How values of an annotation are written and read, for rules that are made of it."""
        return self._rules.get(type_)

    def encode(self, value: Any, type_: Any = Any, *, where: str = "") -> Payload:
        """
        The text of *value*, converted by the annotation *type_*.

        Args:
            value: Anything.
            type_: The annotation.
            where: What is recorded, for the message: ``"result of step 'charge'"``.

        Raises:
            EncodeError: It could not be read back as an equal value.
            CapExceededError: It is too large or too deep.
        """
        # Most values are one of these; the way through the rules takes five times as long.
        cls = type(value)
        if type_ is Any or type_ is cls:
            if value is None:
                return self.dump_plain(None, where=where) if self._hooks else "null"
            if cls is int:
                if -_SMALL < value < _SMALL and not self._hooks:
                    return str(value)
            elif cls is str:
                if len(value) < 1024 and value.isascii() and not self._hooks:  # noqa: PLR2004 - short, under any cap
                    return quote(value)
            elif cls is bool and not self._hooks:
                return "true" if value else "false"
        try:
            text = dumps(self._known[type_].encode(value, self._max_depth))
        except BaseException as error:  # not known yet, or refused: the long way says why
            if came_from_outside(error):
                raise
        else:
            if self._hooks is None and len(text) <= self._short:
                return text
            return self._sealed(text, where)
        return self.dump_plain(self.to_plain(value, type_, where=where), where=where)

    def encode_by_value(self, value: Any, *, where: str = "") -> Payload:
        """
        The text of *value* by its own type, for code that reads it by an annotation that is not at hand.

        `decode` reads it by any annotation which *value* fits.

        Raises:
            EncodeError, CapExceededError: As `encode`.
        """
        return self.dump_plain(self._plain_of(self._by_value, value, where, ""), where=where)

    def decode(self, payload: Payload, type_: Any = Any, *, where: str = "") -> Any:
        """
        The value that was recorded as *payload*, converted by the annotation *type_*.

        It was written by that annotation, or by the value's own type.

        Raises:
            DecodeError: The record does not fit *type_*, or is not a record.
        """
        if payload == "null" and (type_ is Any or type_ is None):
            return None
        if type(payload) is str:
            try:
                plain, end = scan(payload, 0)  # as `loads` does, which is not called: each step of a replay comes here
                if end == len(payload):
                    return self._known[type_].decode(plain)
            except BaseException as error:  # not known yet, or wrong: the long way says what
                if came_from_outside(error):
                    raise
        return self.from_plain(self.load_plain(payload, where=where), type_, where=where)

    def decode_by_value(self, payload: Payload, type_: Any, *, where: str = "") -> Any:
        """
        As `decode`, where *payload* is likely to have been written by `encode_by_value`.

        Raises:
            DecodeError: The record does not fit *type_*, or is no record.
        """
        rules = self._lenient or self._rules
        return self._value_of(rules.get(type_), self.load_plain(payload, where=where), where)

    def encode_arguments(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], types: ArgumentTypes, *, where: str = ""
    ) -> Payload:
        """The text ``[[args...],{kwargs...}]`` of arguments that `ArgumentTypes.bind` has normalised."""
        if not args and not kwargs and not self._hooks:
            return "[[],{}]"
        if not kwargs:  # as most; the way below makes a path for each, should it be refused
            known, depth = self._known, self._max_depth
            try:
                plain = [known[types.positional(index)].encode(value, depth) for index, value in enumerate(args)]
            except BaseException as error:  # as in `encode`
                if came_from_outside(error):
                    raise
            else:
                return self.dump_plain([plain, {}], where=where)
        positional = [
            self.to_plain(value, types.positional(index), where=where, path=f"[0][{index}]")
            for index, value in enumerate(args)
        ]
        named = {
            name: self.to_plain(value, types.named(name), where=where, path=f"[1].{name}")
            for name, value in kwargs.items()
        }
        return self.dump_plain([positional, named], where=where)

    def decode_arguments(
        self, payload: Payload, types: ArgumentTypes, *, where: str = ""
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """
        The arguments recorded as *payload*, such that today's function can be called with them.

        Raises:
            DecodeError: They do not fit today's signature.
        """
        if payload == "[[],{}]" and not types.required and not types.required_named:
            return (), {}
        plain = self.load_plain(payload, where=where)
        match plain:
            case [list() as positional, dict() as named]:
                pass
            case _:
                raise DecodeError(where, "$", "[[arguments],{named arguments}]", f"found {type(plain).__name__}")
        known = self._known
        try:
            args = tuple([known[types.positional(index)].decode(item) for index, item in enumerate(positional)])
        except BaseException as error:  # as in `decode`
            if came_from_outside(error):
                raise
            args = tuple(
                self.from_plain(item, types.positional(index), where=where, path=f"[0][{index}]")
                for index, item in enumerate(positional)
            )
        kwargs = {
            name: self.from_plain(item, types.named(name), where=where, path=f"[1].{name}")
            for name, item in named.items()
        }
        try:
            return types.bind(args, kwargs)
        except TypeError as error:
            raise DecodeError(where, "$", str(types), str(error)) from None

    def digest(self, payload: Payload) -> str:
        """As the function `digest`, but of what the hooks were given: encryption may never write the same twice."""
        return self.digest_of(self.canonical_of(payload))

    def digest_of(self, canonical: str) -> str:
        """As `digest`, of a text in which the keys of objects are in order: see `canonical`."""
        return digest_of(canonical, self._digest_key)

    def fits_digest(self, canonical: str, recorded: str) -> bool:
        """Whether *canonical* is what *recorded* is the digest of, as far as that can tell."""
        return fits(canonical, recorded, self._digest_key)

    def canonical(self, value: Any) -> str:
        """
        The text that equal values share: their record before the hooks, but with the keys of objects in order.

        Raises:
            EncodeError, CapExceededError: As `encode`.
        """
        plain = self.to_plain(value)
        try:
            text = dumps_sorted(plain)
        except (ValueError, TypeError, RecursionError) as error:
            raise EncodeError("", "$", type(plain).__name__, reason_of(error)) from error
        self._check_size(text, "")
        return text

    def canonical_of(self, payload: Payload) -> str:
        """As `canonical`, of the value that was recorded as *payload*."""
        return _sorted(payload if isinstance(payload, str) else self._text(payload, ""))

    # --- halves of the above, for records that contain values -------------------------------

    def to_plain(self, value: Any, type_: Any = Any, *, where: str = "", path: str = "") -> Any:
        """*value* as data that `json` can write. Raises as `encode` does, but for the size."""
        try:
            rule = self._known.get(type_)
        except TypeError:  # an annotation that cannot be hashed
            rule = None
        if rule is None:
            rule = self._rules.get(type_)
        return self._plain_of(rule, value, where, path)

    def _plain_of(self, rule: Rule, value: Any, where: str, path: str) -> Any:
        try:
            return rule.encode(value, self._max_depth)
        except TooDeep:
            raise CapExceededError(
                where or "value",
                "nesting",
                self._max_depth + 1,
                self._max_depth,
                "It may contain itself; record what it is built from",
            ) from None
        except Refusal as refusal:
            raise EncodeError(where, _path(path, refusal), refusal.found, refusal.reason) from refusal.__cause__
        except MemoryError:
            raise
        except BaseException as error:
            if came_from_outside(error):
                raise
            # A hash, property or comparison of the user's; and RecursionError, when called near the limit.
            raise EncodeError(where, f"${path}", qualified(type(value)), reason_of(error)) from error

    def from_plain(self, plain: Any, type_: Any = Any, *, where: str = "", path: str = "") -> Any:
        """The value that `to_plain` made *plain* of. Raises as `decode` does."""
        try:
            return self._value_of(self._rules.get(type_), plain, where, path)
        except DecodeError:
            if self._lenient is not None:
                with contextlib.suppress(Exception):  # then what was wrong with it first is said
                    return self._lenient.get(type_).decode(plain)
            raise

    def _value_of(self, rule: Rule, plain: Any, where: str, path: str = "") -> Any:
        try:
            return rule.decode(plain)
        except Refusal as refusal:
            raise DecodeError(where, _path(path, refusal), refusal.found, refusal.reason) from refusal.__cause__
        except MemoryError:
            raise
        except BaseException as error:
            if came_from_outside(error):
                raise
            # As above: constructors and hashes are the user's, and hostile records nest deep.
            raise DecodeError(where, f"${path}", rule.name, reason_of(error)) from error

    def dump_plain(self, plain: Any, *, where: str = "") -> Payload:
        """The text of plain data, within the cap and through the hooks."""
        try:
            text = dumps(plain)
        except (ValueError, TypeError, RecursionError) as error:
            raise EncodeError(where, "$", type(plain).__name__, reason_of(error)) from error
        if self._hooks is None and len(text) <= self._short:
            return text
        return self._sealed(text, where)

    def _sealed(self, text: str, where: str) -> Payload:
        """*text*, within the cap and through the hooks."""
        self._check_size(text, where)
        if self._hooks is None:
            return text
        try:
            data: Any = self._hooks.encode(text.encode())
        except Exception as error:
            # User code; what it raises must not reach the engine as if it were its own.
            raise EncodeError(where, "$", "JSON text", f"the codec= hook raised {type(error).__name__}") from error
        if isinstance(data, bytes):
            return data
        raise EncodeError(where, "$", qualified(type(data)), "the codec= hook must return bytes")

    # --- texts about values ---------------------------------------------------------------------

    @property
    def conceals(self) -> bool:
        """Whether texts about values are to be encrypted."""
        return encrypts(self._hooks)

    def conceal(self, text: str, brief: str = "") -> str:
        """*text* as it is recorded beside values: encrypted where they are, but for *brief*; see `concealing`."""
        if self._hooks is None or not text or not encrypts(self._hooks):
            return text
        return conceal(text, self._hooks, brief)

    def conceal_message(self, described: str) -> str:
        """As `conceal`, of an error in a line: its class stays readable."""
        name, mark, message = described.partition(": ")
        return f"{name}{mark}{self.conceal(message)}"

    def reveal(self, text: str) -> str:
        """What was concealed as *text*."""
        return text if self._hooks is None else reveal(text, self._hooks)

    def _check_size(self, text: str, where: str) -> None:
        size = len(text)
        if size > self._short:
            try:
                size = size if text.isascii() else len(text.encode())
            except UnicodeEncodeError as error:
                raise EncodeError(where, "$", "str", str(error)) from None
            if size > self._max_bytes:
                remedy = "Keep the data elsewhere and record a reference, or raise the engine's cap"
                raise CapExceededError(where or "value", "size in bytes", size, self._max_bytes, remedy)

    def load_plain(self, payload: Payload, *, where: str = "") -> Any:
        """The plain data that `dump_plain` wrote."""
        text = payload if isinstance(payload, str) else self._text(payload, where)
        try:
            return loads(text)
        except (ValueError, RecursionError, TypeError) as error:
            raise DecodeError(where, "$", "JSON", reason_of(error)) from error

    def _text(self, payload: bytes, where: str) -> str:
        if self._hooks is None:
            raise DecodeError(where, "$", "JSON text", "the record is binary; open the journal with its codec= hooks")
        try:
            return self._hooks.decode(payload).decode()
        except Exception as error:
            # User code on bytes that may have been tampered with.
            raise DecodeError(where, "$", "bytes of the codec= hook", reason_of(error)) from error


def _path(prefix: str, refusal: Refusal) -> str:
    return f"${prefix}{''.join(reversed(refusal.path))}"


def digest(payload: Payload) -> str:
    """
    16 hex digits that tell one recorded text from another; the order of an object's keys does not count.

    For reports and comparisons, not for security.
    """
    return digest_of(_sorted(payload) if isinstance(payload, str) else payload)


def _sorted(text: str) -> str:
    """*text*, with the keys of its objects in order."""
    # Only objects have an order to be undone. Braces in strings cost time, not correctness.
    if text.count("{") == text.count("{}"):
        return text
    try:
        plain = loads(text)
        check_depth(plain, MAX_DEPTH * 4)
        return dumps_sorted(plain)
    except (ValueError, RecursionError, TypeError, Refusal):
        return text  # no JSON, hence without an order that would have to be undone: as it is

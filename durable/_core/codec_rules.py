"""
From annotations to rules: which rule a type hint asks for, built once and cached.

Classes, unions, enums and containers are put together here from the rules of ``codec_types``.
Promise: `Rules.get` never raises; what is not supported gets a rule that refuses with a reason.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false
# (Annotations and JSON are data here; what `type(x) is list` narrows them to has no static type.)

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import json
import operator
import sys
import threading
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Union

import attrs
import cattrs
import cattrs.errors
import cattrs.gen

from durable._core.codec_types import (
    ANY,
    PLAIN,
    STDLIB,
    TAG,
    Decoder,
    Encoder,
    NoneType,
    Refusal,
    Rule,
    TooDeep,
    collection_decoder,
    convert_each,
    decode_pairs,
    dumps,
    encode_any,
    encode_pairs,
    encode_sorted,
    key_path,
    misfit,
    mismatch,
    qualified,
    reason_of,
    scalar,
)

_WRAPPERS: Final = frozenset({"Required", "NotRequired", "ReadOnly", "Final", "ClassVar"})

#: What a value annotated with an abstract collection may be. The first is written bare.
_ABSTRACT: Final[dict[Any, tuple[type, ...]]] = {
    collections.abc.Sequence: (list, tuple),
    collections.abc.MutableSequence: (list,),
    collections.abc.Set: (set, frozenset),
    collections.abc.MutableSet: (set,),
    collections.abc.Mapping: (dict,),
    collections.abc.MutableMapping: (dict,),
    collections.abc.Collection: (list, tuple, set, frozenset),
    collections.abc.Iterable: (list, tuple, set, frozenset),
}


class Rules:
    """The rules of all annotations seen so far, each built when first asked for."""

    def __init__(self) -> None:
        self.known: dict[Any, Rule] = {Any: ANY, object: ANY, None: PLAIN[NoneType], **PLAIN, **STDLIB}
        self._building: dict[Any, Rule] = {}
        # Transactions run on another thread. Only building takes the lock; `known` holds
        # finished rules, or rules whose unfinished parts come back here and wait.
        self._lock = threading.RLock()
        self._converter = cattrs.Converter(detailed_validation=True)

    def get(self, type_: Any) -> Rule:
        """The rule for an annotation. Never raises: what is not supported gets a rule that refuses."""
        try:
            found = self.known.get(type_)
        except TypeError:  # e.g. Annotated[int, {}]: cannot be a key
            return self._build(type_)
        if found is not None:
            return found
        with self._lock:
            found = self.known.get(type_) or self._building.get(type_)
            if found is None:
                try:
                    found = self.known[type_] = self._build(type_)
                finally:
                    self._building.pop(type_, None)
            return found

    def _announce(self, type_: Any, name: str, types_: tuple[type, ...], kinds: frozenset[type]) -> None:
        """Let a type that contains itself find itself while its rule is being built."""
        self._building[type_] = Rule(
            name,
            lambda value, depth: self.get(type_).encode(value, depth),
            lambda plain, _: self.get(type_).decode(plain, None),
            types_,
            kinds,
        )

    def _build(self, type_: Any) -> Rule:  # one flat list of cases
        origin, args = typing.get_origin(type_), typing.get_args(type_)
        if origin is typing.Annotated:
            return self.get(args[0])
        if getattr(origin, "_name", None) in _WRAPPERS:
            return self.get(args[0])
        if origin is Union or isinstance(type_, types.UnionType):
            return self._union(type_, [self.get(member) for member in args])
        if origin is Literal:
            return _literal(type_, args)
        if hasattr(type_, "__supertype__"):
            return self.get(type_.__supertype__)
        if type(type_).__name__ == "TypeAliasType" or type(origin).__name__ == "TypeAliasType":
            self._announce(type_, str(type_), (), frozenset({dict, list, str, int, float, bool, NoneType}))
            alias: Any = origin or type_
            return self.get(substitute(alias.__value__, dict(zip(alias.__type_params__, args, strict=False))))
        base = origin or type_
        if base in _ABSTRACT:
            made = [self.get(_subscript(each, args)) for each in _ABSTRACT[base]]
            return made[0] if len(made) == 1 else self._union(type_, made, bare=made[0])
        if base is list:
            return _list(qualified(type_), self.get(args[0] if args else Any))
        if base is tuple:
            return self._tuple(type_, args)
        if base in (set, frozenset):
            return _set(base, qualified(type_), self.get(args[0] if args else Any))
        if base is dict:
            key, item = args or (Any, Any)
            return _dict(qualified(type_), self.get(key), self.get(item))
        if isinstance(base, type):
            return self._class(type_, base)
        if isinstance(type_, typing.TypeVar | typing.ForwardRef | str) or type_ in _NO_TYPE:
            return ANY
        return _unsupported(type_)

    def _class(self, type_: Any, cls: type) -> Rule:
        if issubclass(cls, enum.Enum):
            return _enum(cls)
        if issubclass(cls, dict) and hasattr(cls, "__required_keys__"):
            self._announce(type_, qualified(type_), (dict,), frozenset({dict}))
            return self._typed_dict(type_, cls)
        self._announce(type_, qualified(type_), (cls,), frozenset({dict}))
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            return self._named_tuple(type_, cls)
        if attrs.has(cls) or dataclasses.is_dataclass(cls):
            return self._record(type_, cls)
        pydantic = sys.modules.get("pydantic")
        # Not imported here: no program has a model without having imported pydantic itself.
        if pydantic is not None and issubclass(cls, pydantic.BaseModel) and hasattr(cls, "model_validate_json"):
            return _model(cls)
        return _unsupported(type_)

    def _tuple(self, type_: Any, args: tuple[Any, ...]) -> Rule:
        if not args and type_ is not tuple and type_ is not typing.Tuple:  # noqa: UP006 - tuple[()]
            args = ()
        elif not args:
            args = (Any, ...)
        if len(args) == 2 and args[1] is ...:  # noqa: PLR2004 - tuple[T, ...]
            item = self.get(args[0])
            return _collection(tuple, qualified(type_), item)
        return _fixed(qualified(type_), [self.get(arg) for arg in args])

    def _union(self, type_: Any, members: list[Rule], *, bare: Rule | None = None) -> Rule:
        """
        Members whose JSON differs in kind are written as they are; the others with a tag.

        What is tagged must not depend on the order of the members, since ``A | B`` and
        ``B | A`` are one key of the cache; *bare* is for unions of our own making.
        """
        name = qualified(type_)
        if ANY in members:
            return ANY
        taken = [kind for rule in members for kind in rule.kinds]
        tagged = {
            index
            for index, rule in enumerate(members)
            if rule is not bare and any(taken.count(kind) > 1 for kind in rule.kinds)
        }
        if tagged:  # A bare dict could be taken for a tag.
            tagged |= {index for index, rule in enumerate(members) if dict in rule.kinds}
        tags = _tags([rule.name for rule in members])
        by_type: dict[type, list[tuple[Rule, str | None]]] = {}
        by_kind: dict[type, Rule] = {}
        by_tag: dict[str, Rule] = {}
        for index, rule in enumerate(members):
            tag = tags[index] if index in tagged else None
            for cls in rule.types:
                # An int is an int first, and a float only where no other member takes it.
                place = 0 if rule.types[0] is cls else len(by_type.get(cls, ()))
                by_type.setdefault(cls, []).insert(place, (rule, tag))
            if tag is None:
                by_kind.update(dict.fromkeys(rule.kinds, rule))
            else:
                by_tag[tag] = rule
        if float in by_kind and int not in taken:
            by_kind[int] = by_kind[float]

        def encode(value: Any, depth: int) -> Any:
            choices = by_type.get(type(value))
            if choices is None:
                raise mismatch(value, name)
            for index, (rule, tag) in enumerate(choices):
                try:
                    plain = rule.encode(value, depth)
                except TooDeep:
                    raise
                except Refusal:
                    if index + 1 < len(choices):
                        continue
                    raise
                return plain if tag is None else {TAG: tag, "v": plain}
            raise mismatch(value, name)

        def decode(plain: Any, _: Any) -> Any:
            if by_tag and type(plain) is dict:
                tag = plain.get(TAG)
                rule = by_tag.get(tag) if type(tag) is str and "v" in plain else None
                if rule is None:
                    raise Refusal(name, f"the record holds an object with tag {tag!r:.60}")
                return rule.decode(plain["v"], None)
            rule = by_kind.get(type(plain))
            if rule is None:
                raise misfit(plain, name)
            return rule.decode(plain, None)

        kinds = frozenset(by_kind) | (frozenset({dict}) if by_tag else frozenset())
        return Rule(name, encode, decode, tuple(by_type), kinds)

    # --- records ---

    def _fields(self, type_: Any) -> dict[str, Rule]:
        return {name: self.get(hint) for name, hint in class_hints(type_).items()}

    def _record(self, type_: Any, cls: Any) -> Rule:
        """An attrs class or dataclass: read through the function that cattrs generates for it."""
        hints = class_hints(type_)
        fields: tuple[Any, ...] = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
        rules = {f.name: self.get(hints.get(f.name, f.type or Any)) for f in fields}
        label = qualified(type_)
        # Pseudo-fields are not among fields(), and the annotation may be a string.
        declared: dict[str, Any] = getattr(cls, "__dataclass_fields__", {})
        if any("INITVAR" in str(getattr(field, "_field_type", "")) for field in declared.values()):
            return _unsupported(type_, "it has an InitVar, whose value no instance keeps")
        # cattrs wants every type variable filled; the hooks below know the real ones.
        target: Any = cls
        if parameters := getattr(target, "__parameters__", ()):
            target = target[(Any,) * len(parameters)]
        hooks = {name: cattrs.override(struct_hook=rule.decode) for name, rule in rules.items()}
        structure = cattrs.gen.make_dict_structure_fn(target, self._converter, **hooks)  # type: ignore[arg-type]  # overrides come by field name

        def decode(plain: Any, _: Any) -> Any:
            if type(plain) is not dict:
                raise misfit(plain, label)
            try:
                return structure(plain, cls)
            except cattrs.errors.ClassValidationError as error:
                raise _first_refusal(error, label) from error

        encode = _encode_fields(cls, label, [(f.name, rules[f.name].encode) for f in fields])
        # A converter or a constructor of the user's may turn what was recorded into something
        # else, and a field outside of __init__ is not recorded at all: only trying tells.
        hooked = any(hasattr(cls, name) for name in ("__attrs_pre_init__", "__attrs_post_init__", "__post_init__"))
        if hooked or not _generated_init(cls) or any(not f.init or getattr(f, "converter", None) for f in fields):
            encode = _verified(encode, decode, label)
        return Rule(label, encode, decode, (cls,), frozenset({dict}))

    def _named_tuple(self, type_: Any, cls: Any) -> Rule:
        rules = self._fields(type_)
        label = qualified(type_)
        names: tuple[str, ...] = cls._fields
        encoders = [(name, rules.get(name, ANY).encode) for name in names]
        decoders = [(name, rules.get(name, ANY).decode) for name in names]

        def decode(plain: Any, _: Any) -> Any:
            if type(plain) is not dict:
                raise misfit(plain, label)
            found = _decode_present(decoders, plain)
            for name in names:
                if name not in found and name not in cls._field_defaults:
                    raise _missing(name, label)
            try:
                return cls(**found)
            except Exception as error:  # a subclass's own __new__
                raise Refusal(label, reason_of(error)) from error

        return Rule(label, _encode_fields(cls, label, encoders), decode, (cls,), frozenset({dict}))

    def _typed_dict(self, type_: Any, cls: Any) -> Rule:
        hints = class_hints(type_)
        rules = {name: self.get(hint) for name, hint in hints.items()}
        label = qualified(type_)
        marks = {name: getattr(typing.get_origin(hint), "_name", None) for name, hint in hints.items()}
        required = {
            name
            for name in hints
            if marks[name] == "Required" or (marks[name] != "NotRequired" and name in cls.__required_keys__)
        }
        decoders = [(name, rule.decode) for name, rule in rules.items()]

        def encode(value: Any, depth: int) -> Any:
            if type(value) is not dict:
                raise mismatch(value, label)
            if depth <= 0:
                raise TooDeep(label, "too deep")
            for name in required:
                if name not in value:
                    raise Refusal("dict", f"{label} requires the key {name!r}")
            out: dict[str, Any] = {}
            for key, item in value.items():
                rule = rules.get(key) if type(key) is str else None
                if rule is None:
                    raise Refusal("dict", f"{label} has no key {key!r:.80}, so that it would be lost")
                try:
                    out[key] = rule.encode(item, depth - 1)
                except Refusal as refusal:
                    refusal.path.append(key_path(key))
                    raise
            return out

        def decode(plain: Any, _: Any) -> Any:
            if type(plain) is not dict:
                raise misfit(plain, label)
            found = _decode_present(decoders, plain)
            for name in required:
                if name not in found:
                    raise _missing(name, label)
            return found

        return Rule(label, encode, decode, (dict,), frozenset({dict}))


def _subscript(cls: type, args: tuple[Any, ...]) -> Any:
    if not args:
        return cls
    return types.GenericAlias(cls, (args[0], ...) if cls is tuple else args)


def _tags(names: list[str]) -> list[str]:
    """Class names where they tell the members apart, full names where they do not."""
    short = [name.rpartition(".")[2] if "[" not in name else name for name in names]
    return [full if short.count(brief) > 1 else brief for full, brief in zip(names, short, strict=True)]


def _generated_init(cls: Any) -> bool:
    """Whether the constructor is the one that attrs or dataclasses wrote, hence only assigns."""
    if attrs.has(cls):
        # attrs compiles its methods under a file name of this form.
        return "<attrs generated" in cls.__init__.__code__.co_filename
    return bool(cls.__dataclass_params__.init) and cls.__init__.__code__.co_filename == "<string>"


def _encode_fields(cls: type, label: str, fields: list[tuple[str, Encoder]]) -> Encoder:
    names = [name for name, _ in fields]
    encoders = [encode for _, encode in fields]
    get: Callable[[Any], Any]
    if not names:
        get = lambda _: ()  # noqa: E731 - the empty case of attrgetter
    elif len(names) == 1:
        one = operator.attrgetter(names[0])
        get = lambda value: (one(value),)  # noqa: E731 - attrgetter of one name gives no tuple
    else:
        get = operator.attrgetter(*names)

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not cls:
            if isinstance(value, cls):
                raise Refusal(
                    qualified(type(value)), f"a subclass of {label} would come back as {label}; annotate with a union"
                )
            raise mismatch(value, label)
        if depth <= 0:
            raise TooDeep(label, "too deep")
        depth -= 1
        try:
            items = get(value)
        except Exception as error:  # an unset slot, or a descriptor of the user's
            raise Refusal(label, reason_of(error)) from error
        out: dict[str, Any] = {}
        try:
            for name, convert, item in zip(names, encoders, items, strict=True):
                out[name] = convert(item, depth)
        except Refusal as refusal:
            refusal.path.append(f".{names[len(out)]}")
            raise
        return out

    return encode


def _verified(encode: Encoder, decode: Decoder, label: str) -> Encoder:
    def encode_verified(value: Any, depth: int) -> Any:
        plain = encode(value, depth)
        try:
            # Once more through the text, so that the decoder may keep what it gets.
            again = encode(decode(json.loads(dumps(plain)), None), depth)
        except Refusal as refusal:
            raise Refusal(label, f"it cannot be read back: {refusal.reason}") from refusal
        if dumps(again) != dumps(plain):
            raise Refusal(label, "its constructor does not give back an equal instance from the recorded fields")
        return plain

    return encode_verified


def _first_refusal(error: cattrs.errors.ClassValidationError, label: str) -> Refusal:
    """What cattrs collected, as one refusal that knows the field."""
    inner = error.exceptions[0]
    notes = [n for n in getattr(inner, "__notes__", ()) if isinstance(n, cattrs.errors.AttributeValidationNote)]
    if isinstance(inner, Refusal) and notes:
        inner.path.append(f".{notes[-1].name}")
        return inner
    if isinstance(inner, KeyError) and notes:
        return _missing(notes[-1].name, label)
    return Refusal(label, reason_of(inner))


def _missing(name: str, label: str) -> Refusal:
    refusal = Refusal(label, f"the record has no {name!r}, and it has no default")
    refusal.path.append(f".{name}")
    return refusal


def _decode_present(decoders: list[tuple[str, Decoder]], plain: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    name = ""
    try:
        for name, decode in decoders:
            if name in plain:
                found[name] = decode(plain[name], None)
    except Refusal as refusal:
        refusal.path.append(f".{name}")
        raise
    return found


def _unsupported(type_: Any, reason: str = "") -> Rule:
    name = qualified(type_)
    why = reason or (
        "no rule turns it into JSON and back; make it an attrs class, a dataclass, "
        "a TypedDict or a pydantic model, or annotate with types of the standard library"
    )

    def encode(value: Any, _: Any) -> Any:
        raise Refusal(qualified(type(value)), f"the annotation is {name}: {why}")

    def decode(_plain: Any, _: Any) -> Any:
        raise Refusal(name, why)

    return Rule(name, encode, decode, (type_,) if isinstance(type_, type) else (), frozenset({dict}))


def _model(cls: Any) -> Rule:
    label = qualified(cls)

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not cls:
            raise mismatch(value, label)
        try:
            text = value.model_dump_json(by_alias=True)
            plain = json.loads(text)
            same = cls.model_validate_json(text) == value
        except Exception as error:  # serializers and validators of the user's
            raise Refusal(label, reason_of(error)) from error
        if not same:
            raise Refusal(label, "model_validate_json does not give back an equal model from model_dump_json")
        check_depth(plain, depth)
        return plain

    def decode(plain: Any, _: Any) -> Any:
        try:
            return cls.model_validate_json(dumps(plain))
        except Exception as error:  # as above
            raise Refusal(label, reason_of(error)) from error

    return Rule(label, encode, decode, (cls,), frozenset({dict, list, str, int, float, bool, NoneType}))


def check_depth(plain: Any, depth: int) -> None:
    """Raise `TooDeep` if *plain* JSON nests deeper than *depth*. A loop: the data may be hostile."""
    level = [plain]
    while level:
        containers = [each for each in level if type(each) is dict or type(each) is list]
        if containers and depth <= 0:
            raise TooDeep(type(containers[0]).__name__, "too deep")
        depth -= 1
        level = [item for each in containers for item in (each.values() if type(each) is dict else each)]


def _list(name: str, item: Rule) -> Rule:
    convert, revert = item.encode, item.decode

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not list:
            raise mismatch(value, name)
        if depth <= 0:
            raise TooDeep(name, "too deep")
        return convert_each(convert, value, depth - 1)

    def decode(plain: Any, _: Any) -> Any:
        if type(plain) is not list:
            raise misfit(plain, name)
        return convert_each(revert, plain, None)

    return Rule(name, encode, decode, (list,), frozenset({list}))


def _collection(cls: Any, name: str, item: Rule) -> Rule:
    convert = item.encode
    ordered = cls is tuple

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not cls:
            raise mismatch(value, name)
        if depth <= 0:
            raise TooDeep(name, "too deep")
        return convert_each(convert, value, depth - 1) if ordered else encode_sorted(convert, value, depth)

    return Rule(name, encode, collection_decoder(cls, item.decode, name), (cls,), frozenset({list}))


_set = _collection


def _fixed(name: str, items: list[Rule]) -> Rule:
    def encode(value: Any, depth: int) -> Any:
        if type(value) is not tuple:
            raise mismatch(value, name)
        if depth <= 0:
            raise TooDeep(name, "too deep")
        if len(value) != len(items):
            raise Refusal("tuple", f"{name} has {len(items)} items, found {len(value)}")
        return convert_each(lambda pair, left: pair[0].encode(pair[1], left), zip(items, value, strict=True), depth - 1)

    def decode(plain: Any, _: Any) -> Any:
        if type(plain) is not list:
            raise misfit(plain, name)
        if len(plain) != len(items):
            raise Refusal(name, f"the record holds {len(plain)} items")
        return tuple(convert_each(lambda pair, _: pair[0].decode(pair[1], None), zip(items, plain, strict=True), None))

    return Rule(name, encode, decode, (tuple,), frozenset({list}))


def _dict(name: str, key_rule: Rule, item_rule: Rule) -> Rule:
    """An object where the keys are text (an int key as its digits), else a list of pairs."""
    convert, revert = item_rule.encode, item_rule.decode
    key_convert, key_revert = key_rule.encode, key_rule.decode
    digits = key_rule is PLAIN[int]

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not dict:
            raise mismatch(value, name)
        if depth <= 0:
            raise TooDeep(name, "too deep")
        depth -= 1
        out: dict[str, Any] = {}
        key: Any = None
        try:
            for key, item in value.items():
                plain = key_convert(key, depth)
                if digits:
                    plain = str(plain)
                if type(plain) is not str:
                    return encode_pairs(key_convert, convert, value, depth)
                out[plain] = convert(item, depth)
        except Refusal as refusal:
            refusal.path.append(key_path(key))
            raise
        return out

    def decode_key(text: str) -> Any:
        if digits:
            number = int(text) if text.removeprefix("-").isdecimal() else None
            if str(number) != text:
                raise misfit(text, "digits")
            return number
        return key_revert(text, None)

    def decode(plain: Any, _: Any) -> Any:
        if type(plain) is list:
            return decode_pairs(key_revert, revert, plain)
        if type(plain) is not dict:
            raise misfit(plain, name)
        out: dict[Any, Any] = {}
        text = ""
        try:
            for text, item in plain.items():
                out[decode_key(text)] = revert(item, None)
        except Refusal as refusal:
            refusal.path.append(key_path(text))
            raise
        except (TypeError, ValueError) as error:  # unhashable key, too many digits
            raise Refusal(name, reason_of(error)) from error
        return out

    # Pairs are written only where a key is not text, so that both kinds must be expected.
    texts_only = digits or key_rule.kinds == frozenset({str})
    return Rule(name, encode, decode, (dict,), frozenset({dict}) if texts_only else frozenset({dict, list}))


def _plain_key(plain: Any) -> Any:
    return plain if type(plain) is str else (type(plain), dumps(plain))


def _table(name: str, members: list[tuple[Any, Any]], keys: Callable[[Any], Any], types_: tuple[type, ...]) -> Rule:
    """A closed set of values. *members* are pairs of value and plain."""
    to_plain = {keys(value): plain for value, plain in members}
    to_value = {_plain_key(plain): value for value, plain in members}

    def encode(value: Any, _: Any) -> Any:
        try:
            return to_plain[keys(value)]
        except (KeyError, TypeError):
            raise mismatch(value, name) from None

    def decode(plain: Any, _: Any) -> Any:
        try:
            return to_value[_plain_key(plain)]
        except KeyError:
            raise misfit(plain, name) from None

    return Rule(name, encode, decode, types_, frozenset(type(plain) for _, plain in members))


def _literal(type_: Any, args: tuple[Any, ...]) -> Rule:
    name = qualified(type_)
    members: list[tuple[Any, Any]] = []
    for value in args:
        if isinstance(value, enum.Enum):
            members.append((value, _enum(type(value)).encode(value, 0)))
        else:
            members.append((value, encode_any(value, 1)))
    if len({_plain_key(plain) for _, plain in members}) < len(members):
        return _unsupported(type_, "two of its values have the same JSON")
    # By type too: True is equal to 1.
    return _table(name, members, lambda value: (type(value), value), tuple(dict.fromkeys(map(type, args))))


def _enum(cls: type[enum.Enum]) -> Rule:
    name = qualified(cls)
    if issubclass(cls, enum.Flag):
        return _flag(cls, name)
    try:
        members = [(member, encode_any(member.value, 8)) for member in cls]
    except Refusal:
        members = [(member, member.name) for member in cls]
    if len({_plain_key(plain) for _, plain in members}) < len(members):
        members = [(member, member.name) for member in cls]

    # By identity: a member may compare or hash as its value does, or not hash at all.
    return _table(name, members, lambda value: id(value) if type(value) is cls else None, (cls,))


def _flag(cls: type[enum.Flag], name: str) -> Rule:
    def load(number: int) -> enum.Flag:
        flag = cls(number)
        if type(flag) is not cls or flag.value != number:
            raise ValueError("no such flags")
        return flag

    return scalar(cls, int, operator.attrgetter("value"), load, name)


_NO_TYPE: Final = frozenset({inspect.Parameter.empty, typing.NoReturn, typing.Never, typing.Final, typing.ClassVar})


# --- annotations -------------------------------------------------------------------------------


def resolve(
    annotations: Mapping[str, Any], globals_: Mapping[str, Any], locals_: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """*annotations* with their forward references resolved, each by itself; Any where that fails."""
    try:
        return _resolve(annotations, globals_, locals_)
    except Exception:  # noqa: BLE001 - an annotation is any expression of the user's
        out: dict[str, Any] = {}
    for name, annotation in annotations.items():
        try:
            out.update(_resolve({name: annotation}, globals_, locals_))
        except Exception:  # noqa: BLE001 - as above; names under TYPE_CHECKING are the usual case
            out[name] = Any
    return out


def _resolve(annotations: Mapping[str, Any], globals_: Any, locals_: Any) -> dict[str, Any]:
    if not any(isinstance(each, str | typing.ForwardRef) or hasattr(each, "__args__") for each in annotations.values()):
        return {name: NoneType if each is None else each for name, each in annotations.items()}
    # A class as carrier, because only there are Final and ClassVar allowed.
    carrier = type("Carrier", (), {"__annotations__": dict(annotations)})
    return typing.get_type_hints(carrier, dict(globals_), dict(locals_ or {}), include_extras=True)


def class_hints(type_: Any) -> dict[str, Any]:
    """The annotations of a class and its bases, with the type variables of each filled in."""
    cls = typing.get_origin(type_) or type_
    args = typing.get_args(type_)
    filled = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
    out: dict[str, Any] = {}
    for base in reversed(vars(cls).get("__orig_bases__", cls.__bases__)):
        origin = typing.get_origin(base) or base
        if isinstance(origin, type) and origin not in (object, dict, tuple, typing.Generic, typing.Protocol):
            out.update(class_hints(substitute(base, filled)))
    module = sys.modules.get(cls.__module__)
    names = vars(module) if module else {}
    own = resolve(inspect.get_annotations(cls), names, {cls.__name__: cls})
    out.update({name: substitute(hint, filled) for name, hint in own.items()})
    return out


def substitute(hint: Any, filled: Mapping[Any, Any]) -> Any:
    """*hint* with its type variables replaced; Any for those that are unknown."""
    if isinstance(hint, typing.TypeVar):
        return filled.get(hint, Any)
    parameters = getattr(hint, "__parameters__", ()) if typing.get_origin(hint) else ()
    if not parameters:
        return hint
    return hint[tuple(filled.get(each, Any) for each in parameters)]

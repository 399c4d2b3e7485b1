"""
The rules of annotations that offer a choice: unions of types, and closed sets of values.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable
from typing import Any

from durable._core.codec.class_names import aliases_of
from durable._core.codec.json_text import dumps
from durable._core.codec.rule import TAG, Refusal, Rule, TooDeep, misfit, mismatch, qualified, unsupported
from durable._core.codec.rules.scalars import scalar
from durable._core.codec.rules.untyped import ANY, encode_any


def union_rule(name: str, members: list[Rule], *, bare: Rule | None = None) -> Rule:
    """
    Members whose JSON differs in kind are written as they are; the others with a tag.

    What is tagged must not depend on the order of the members, since ``A | B`` and
    ``B | A`` are one key of the cache; *bare* is for unions of our own making.
    """
    if ANY in members:
        return ANY
    taken = [kind for rule in members for kind in rule.kinds]
    tagged = {
        index
        for index, rule in enumerate(members)
        if rule is not bare and any(taken.count(kind) > 1 for kind in rule.kinds)
    }
    if tagged:  # A bare dict needs a tag too, since it could be taken for one.
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
    for index in tagged:
        for alias in (alias for cls in members[index].types for alias in aliases_of(cls)):
            by_tag.setdefault(alias.replace(":", "."), members[index])
            by_tag.setdefault(alias.rpartition(":")[2], members[index])
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

    def decode(plain: Any) -> Any:
        if by_tag and type(plain) is dict:
            tag = plain.get(TAG)
            rule = by_tag.get(tag) if type(tag) is str and "v" in plain else None
            if rule is None:
                raise Refusal(name, f"found an object with tag {tag!r:.60}")
            return rule.decode(plain["v"])
        rule = by_kind.get(type(plain))
        if rule is None:
            raise misfit(plain, name)
        return rule.decode(plain)

    kinds = frozenset(by_kind) | (frozenset({dict}) if by_tag else frozenset())
    return Rule(name, encode, decode, tuple(by_type), kinds)


def _tags(names: list[str]) -> list[str]:
    """Class names where they tell the members apart, full names where they do not."""
    short = [name.rpartition(".")[2] if "[" not in name else name for name in names]
    return [full if short.count(brief) > 1 else brief for full, brief in zip(names, short, strict=True)]


# --- closed sets of values ---------------------------------------------------------------------


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

    def decode(plain: Any) -> Any:
        try:
            return to_value[_plain_key(plain)]
        except KeyError:
            raise misfit(plain, name) from None

    return Rule(name, encode, decode, types_, frozenset(type(plain) for _, plain in members))


def literal_rule(type_: Any, args: tuple[Any, ...]) -> Rule:
    """The rule for *type_*, which is ``Literal[*args]``."""
    name = qualified(type_)
    members: list[tuple[Any, Any]] = []
    for value in args:
        if isinstance(value, enum.Enum):
            members.append((value, enum_rule(type(value)).encode(value, 0)))
        else:
            members.append((value, encode_any(value, 1)))
    if len({_plain_key(plain) for _, plain in members}) < len(members):
        return unsupported(type_, "two of its values have the same JSON")
    # By type too, because True is equal to 1.
    return _table(name, members, lambda value: (type(value), value), tuple(dict.fromkeys(map(type, args))))


def enum_rule(cls: type[enum.Enum]) -> Rule:
    """Members are written as their values, or as their names where the values cannot be read back."""
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

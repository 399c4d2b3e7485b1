"""Records of ours, which attrs completes when the first of them is made."""

from __future__ import annotations

import copy
import pickle
from typing import ClassVar, Generic, TypeVar

import attrs
import pytest
from attrs import field

from durable._core.light_frozen import light_define, light_frozen

T = TypeVar("T")


@light_frozen
class Point:
    kind: ClassVar[int] = 7
    x: int
    y: int = 2
    seen: list[int] = field(factory=list)

    def moved(self) -> Point:
        return attrs.evolve(self, x=self.x + 1)


@light_frozen
class Named(Point, Generic[T]):
    name: str = field(default="", kw_only=True)


@light_frozen(eq=False)
class Unique:
    n: int


@light_define
class Account:
    owner: str
    balance: int = 0


def test_a_record_is_what_attrs_makes_of_a_frozen_class():
    """Its fields, defaults, equality, hash, text and copies, and no dictionary."""
    one = Point(1)
    assert (one.x, one.y, one.seen, one.kind) == (1, 2, [], 7)
    assert one == Point(1)
    assert one != Point(2)
    assert repr(one) == "Point(x=1, y=2, seen=[])"
    assert hash(Unique(1)) != hash(Unique(1))
    assert Unique(1) != Unique(1)
    assert one.moved() == Point(2)
    assert copy.copy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one
    assert not hasattr(one, "__dict__")
    with pytest.raises(TypeError, match="x"):
        Point()  # pyright: ignore[reportCallIssue]  # what is tried


def test_a_derived_record_has_the_fields_of_both():
    """In the order of attrs: those of the base first."""
    assert [each.name for each in attrs.fields(Named)] == ["x", "y", "seen", "name"]
    assert Named[int](1, 3, name="a") == Named(1, 3, [], name="a")


def test_the_fields_are_known_before_the_first_record_is_made():
    """Whoever asks for them, such as a codec, completes the class."""

    @light_frozen
    class Fresh:
        a: int
        b: str = "b"

    assert [each.name for each in attrs.fields(Fresh)] == ["a", "b"]
    assert Fresh(1) == Fresh(1, "b")
    match Fresh(3):
        case Fresh(a, b):
            assert (a, b) == (3, "b")


def test_what_changes_is_no_key():
    """As with attrs: it is compared, and has no hash."""
    account = Account("Ada")
    account.balance += 5
    assert account == Account("Ada", 5)
    with pytest.raises(TypeError, match="unhashable"):
        hash(account)

"""Records of ours, which attrs completes when the first of them is made."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
import weakref
from typing import ClassVar, Generic, TypeVar

import attrs
import pytest
from attrs import field

from durable import Limit, Settled
from durable._core.light_frozen import late_frozen, light_define, light_frozen

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


def test_a_record_is_shown_as_attrs_shows_it():
    """Less what is not to be shown, and by its own method, where it has one."""

    @light_frozen
    class Told:
        a: int
        b: str = field(default="b", repr=False)
        c: str = field(default="c", repr=str.upper)

    @light_define
    class Own:
        a: int

        def __repr__(self) -> str:
            return "own"

    assert repr(Told(1)) == "Told(a=1, c=C)"
    assert repr(Own(1)) == "own"
    assert repr(Named("n", name="x")) == "Named(x='n', y=2, seen=[], name='x')"


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


def made_by(frozen):
    """Classes that nobody has used yet, each made by *frozen*."""

    @frozen
    class Base(Generic[T]):
        a: T
        b: list[int] = field(factory=list, eq=False)
        n: ClassVar[int] = 3

        @property
        def twice(self) -> tuple[T, T]:
            return (self.a, self.a)

    @frozen(kw_only=True)
    class Derived(Base[int]):
        c: str = "c"

    @frozen(eq=False)
    class Unique:
        a: int

        def __repr__(self) -> str:
            return "unique"

    return Base, Derived, Unique


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize(
    "asked",
    [
        lambda cls: str(inspect.signature(cls)),
        lambda cls: [(each.name, each.inherited) for each in attrs.fields(cls)],
        lambda cls: repr(cls(1)).rpartition(".")[2],
        lambda cls: cls(1) == cls(1),
        lambda cls: weakref.ref(made := cls(1))() is made,
        lambda cls: attrs.asdict(attrs.evolve(cls(1), a=2)),
        lambda cls: attrs.asdict(copy.deepcopy(cls(1))),
        lambda cls: (cls(1), {*dir(cls)} - {"__signature__"})[1],
        lambda cls: (cls(1), vars(cls)["__slots__"])[1],
        lambda cls: (cls(1), cls.__match_args__)[1],
        lambda cls: cls.__annotations__,
    ],
)
def test_what_users_hold_is_what_attrs_makes_of_it(which, asked):
    """Whatever is asked of the class first."""
    assert asked(made_by(late_frozen)[which]) == asked(made_by(attrs.frozen)[which])


def test_what_users_hold_cannot_be_changed_and_is_hashed():
    """Also of a class of their own that is derived from it."""
    base, derived, unique = made_by(late_frozen)

    class Mine(derived):
        def __init__(self, z: int) -> None:
            super().__init__(z)

    assert str(inspect.signature(Mine)) == "(z: 'int') -> 'None'"
    for made in (Mine(2), base(1), derived(1), unique(1)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            made.a = 2
        assert isinstance(hash(unique(1)), int)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        derived()


def test_what_users_hold_is_unpickled_where_none_was_made():
    """In another process, say, to which it was sent."""
    given = pickle.dumps((Limit("narrow", concurrency=3), Settled(value=4)))
    script = f"import pickle; print(pickle.loads({given!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str((Limit("narrow", concurrency=3), Settled(value=4)))


def test_how_records_are_compared_is_written_when_the_first_two_are():
    """By whichever is asked first: equality, inequality, or the hash; with fields of a base, and of others too."""

    @light_frozen
    class Base:
        a: int

    @light_frozen
    class Derived(Base):
        b: int = 1

    @light_frozen(eq=False)
    class Apart(Base):
        b: int = 1

    @light_define
    class Changing:
        a: int

    assert {Derived(1): 1}[Derived(1)] == 1
    assert Derived(1) != Derived(1, 2)
    assert Base(1) != Derived(1)
    assert Base(1) == Base(1)
    assert hash(Base(1)) == hash(Base(1))
    assert Base(1) != 1
    assert Apart(1) != Apart(2)
    assert Changing(1) != Changing(2)
    assert Changing(1) == Changing(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Changing(1))
    assert attrs.fields(Derived).b.default == 1
    assert attrs.evolve(Derived(1), b=3) == Derived(1, 3)


def test_a_record_compares_as_its_class_says():
    """Where it has such a method of its own."""

    @light_frozen
    class Named:
        name: str
        seen: int = 0

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Named) and self.name == other.name

        def __hash__(self) -> int:
            return hash(self.name)

    assert Named("a", 1) == Named("a", 2)
    assert len({Named("a", 1), Named("a", 2), Named("b")}) == 2

"""Named tuples of ours, whose `__new__` is written when the first of them is made."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing
from typing import Any, NamedTuple

import pytest

from durable._core import light_tuples


class Plain(NamedTuple):
    """What it has to be like."""

    name: str
    size: int = 2
    seen: tuple[Plain, ...] = ()

    @property
    def twice(self) -> int:
        return self.size * 2


class Light(light_tuples.NamedTuple):
    """What it has to be like."""

    name: str
    size: int = 2
    seen: tuple[Light, ...] = ()

    @property
    def twice(self) -> int:
        return self.size * 2


class Unmade(light_tuples.NamedTuple):
    name: str


class Odd(Light):
    """That one with a method of its own."""

    def odd(self) -> bool:
        return self.size % 2 == 1


class Other(light_tuples.NamedTuple):
    first: int
    second: int


def test_a_tuple_is_what_typing_makes():
    plain: Any = Plain("a")
    light: Any = Light("a")
    assert light == plain == ("a", 2, ())
    assert hash(light) == hash(plain)
    assert isinstance(light, tuple)
    assert (light.name, light.size, light.seen, light.twice) == ("a", 2, (), 4)
    assert repr(light) == repr(plain).replace("Plain", "Light")
    assert light._asdict() == plain._asdict()
    assert light._replace(size=5) == plain._replace(size=5) == ("a", 5, ())
    assert Light._make(["b", 1, ()]) == ("b", 1, ())
    assert type(light._replace(size=5)) is Light
    for name in ("_fields", "_field_defaults", "__match_args__", "__doc__", "__slots__"):
        assert getattr(Light, name) == getattr(Plain, name)
    assert Light.__name__ == Light.__qualname__ == "Light"
    assert Light.__module__ == Plain.__module__
    assert inspect.getdoc(Light.size) == inspect.getdoc(Plain.size)
    assert not hasattr(light, "__dict__")
    assert typing.get_type_hints(Light)["size"] is int


def test_a_tuple_is_copied_and_pickled_also_before_another_was_made():
    light = Light("a", 3)
    assert copy.copy(light) == copy.deepcopy(light) == pickle.loads(pickle.dumps(light)) == light
    assert type(pickle.loads(pickle.dumps(light))) is Light
    assert Unmade._make(["a"]) == ("a",)


@pytest.mark.parametrize(
    "args, kwargs", [((), {}), (("a", 1, (), 4), {}), (("a",), {"other": 1}), (("a",), {"name": 1})]
)
def test_wrong_arguments_are_refused_at_first_and_later(args, kwargs):
    class Fresh(light_tuples.NamedTuple):
        name: str
        size: int = 2
        seen: tuple[int, ...] = ()

    for _ in range(2):
        with pytest.raises(TypeError):
            Fresh(*args, **kwargs)
    with pytest.raises(TypeError):
        Fresh("a")._replace(other=1)
    with pytest.raises(TypeError):
        Fresh._make([])


def test_a_tuple_cannot_be_changed_and_is_matched_by_position():
    light: Any = Light("a")
    with pytest.raises(AttributeError):
        light.size = 3
    match light:
        case Light(name, size):
            assert (name, size) == ("a", 2)
        case _:
            pytest.fail("not matched")


def test_a_class_derived_from_one_makes_its_own():
    assert Odd("a", 3).odd()
    assert type(Odd("a")) is Odd
    assert repr(Odd("a")) == "Odd(name='a', size=2, seen=())"
    assert type(Light("a")) is Light


def test_fields_of_another_class_are_its_own():
    """Those who read a field are shared by all classes."""
    assert (Other(1, 2).first, Other(first=1, second=2).second) == (1, 2)

"""Decoded sets iterate in their recorded order in every process, and are sets in every other way."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable._core.codec.codec import Codec
from durable._core.codec.rules.recorded_sets import RecordedFrozenSet, RecordedSet

KINDS: list[tuple[type, type]] = [(set, RecordedSet), (frozenset, RecordedFrozenSet)]
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon"]

_PROGRAM = """
import sys
from typing import Any
from durable._core.codec.codec import Codec

text = sys.argv[1]
for type_, recorded in [
    (set[str], text), (frozenset[str], text), (set[str] | None, text), (Any, '{"$": "set", "v": ' + text + "}")
]:
    found = Codec().decode(recorded, type_)
    plain = set if isinstance(found, set) else frozenset
    derived = [found | {"omega"}, found - {"beta"}, plain({"beta", "gamma"}) & found, {name: 1 for name in found}]
    print([*found], *map(list, derived))
"""


def test_the_order_is_the_same_in_every_process():
    """
    What a workflow does in a loop over a decoded set does not depend on the seed of the process's hashes.
    """
    text = Codec().encode(set(WORDS), set[str])
    assert isinstance(text, str)
    printed = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM, text],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(printed) == 1
    assert all(line.startswith(f"{sorted(WORDS)}") for line in printed.pop().splitlines())


@pytest.mark.parametrize("plain, recorded", KINDS)
def test_it_is_a_set_to_whoever_looks(plain, recorded):
    """
    isinstance, equality, hash, repr's form, membership, copies and pickles are a set's.
    """
    ours, theirs = recorded(WORDS), plain(WORDS)
    assert isinstance(ours, plain)
    assert ours == theirs
    assert theirs == ours
    assert eval(repr(ours)) == theirs
    assert repr(recorded()) == repr(plain())
    for each in (copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(each) is recorded
        assert list(each) == WORDS
    if plain is frozenset:
        assert hash(ours) == hash(theirs)
    else:
        with pytest.raises(TypeError):
            hash(ours)


items = st.lists(st.integers(0, 8))


@given(items, items, st.sampled_from(KINDS))
def test_what_is_derived_is_right_and_in_order(left: list[int], right: list[int], kind: tuple[type, type]):
    """
    Every operator and method gives what a plain set gives, its own items first and in order.
    """
    plain, recorded = kind
    ours, others = recorded(left), [plain(right), right, recorded(right)]
    for name in ("union", "intersection", "difference", "symmetric_difference"):
        for other in others:
            made = getattr(ours, name)(other)
            assert type(made) is recorded
            assert made == getattr(plain(left), name)(other)
            own = [item for item in ours if item in made]
            assert list(made)[: len(own)] == own
    for name in ("__or__", "__and__", "__sub__", "__xor__", "__ror__", "__rand__", "__rxor__"):
        assert getattr(ours, name)(set(right)) == getattr(set(left), name)(set(right))
        assert getattr(ours, name)(7) is NotImplemented
    assert (ours <= plain(right), ours < plain(right)) == (plain(left) <= plain(right), plain(left) < plain(right))


changes = st.sampled_from([
    ("add", True), ("discard", True), ("update", False), ("difference_update", False), ("clear", None), ("copy", None),
    ("intersection_update", False), ("symmetric_difference_update", False),
    ("__ior__", False), ("__iand__", False), ("__isub__", False), ("__ixor__", False),
])  # fmt: skip


@given(items, st.lists(st.tuples(changes, items)))
def test_what_is_changed_in_place_stays_one_set(start: list[int], program: list[tuple[tuple[str, Any], list[int]]]):
    """
    Whatever is done to it, its items and their order tell the same, and are a plain set's.
    """
    ours, theirs = RecordedSet(start), set(start)
    for (name, one), values in program:
        given_ = () if one is None else (len(values),) if one else (set(values),)
        getattr(ours, name)(*given_)
        getattr(theirs, name)(*given_)
        assert ours == theirs
        assert sorted(ours) == sorted(theirs)
        assert len(list(ours)) == len(theirs)


def test_taking_out_is_in_order_and_says_what_is_missing():
    """
    `pop` takes the first; what is not there raises as in a plain set.
    """
    ours = RecordedSet("cab")
    assert (ours.pop(), ours.pop(), ours.pop()) == ("c", "a", "b")
    for empty in (ours.pop, lambda: ours.remove("c")):
        with pytest.raises(KeyError):
            empty()
    assert not ours
    for name in ("__ior__", "__iand__", "__isub__", "__ixor__"):
        assert getattr(ours, name)(7) is NotImplemented


@pytest.mark.parametrize("type_", [set[str], frozenset[str], Any, set[str] | None, set[int] | set[str]])
def test_a_recorded_set_can_be_recorded_again(type_):
    """
    A set that a step returned may be given to the next one; its text is that of the equal plain set.
    """
    codec = Codec()
    value: Any = frozenset(WORDS) if type_ == frozenset[str] else set(WORDS)
    text = codec.encode(value, type_)
    found = codec.decode(text, type_)
    assert type(found) in (RecordedSet, RecordedFrozenSet)
    assert codec.encode(found, type_) == text

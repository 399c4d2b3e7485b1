"""
A crash at every commit, and a glitch at every line, of your own workflow, in milliseconds each.

    def test_a_ride_survives_whatever_happens():
        every_crash(ride(42, "Main St 1"), [ride, notify_drivers], tables="CREATE TABLE rides (id INTEGER PRIMARY KEY)")

The operation is played undisturbed (twice, to see that it comes to the same), and then once for each fault. In each
play the engine, its journal and its scheduler are real; the store is in memory, time jumps, and each life of the
process has an event loop of its own. `KINDS` may go wrong; `STRICT` (or `CONSISTENT`) must hold. What a play finds is
an AssertionError that names the fault, what differs, and the journal; and so is a fault that did not strike.

These are for plain test functions: they bring event loops of their own.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Unpack

from attrs import field, frozen

from durable._core.authoring.registry import Given
from durable._core.program.ops import RunOp
from durable.testing._crash.faults import KINDS, Fault, Kind, pairs_of
from durable.testing._crash.invariants import Outcome
from durable.testing._crash.lives import dead_are_silent
from durable.testing._crash.sites import COMMIT_AFTER, COMMIT_BEFORE, Site
from durable.testing.scenario import Scenario, ScenarioOptions

if TYPE_CHECKING:
    import pytest

_COMMITS: Final = (COMMIT_BEFORE, COMMIT_AFTER)


@frozen
class Survived:
    """
    What a workflow has survived.

    Attributes:
        name: Of the workflow or job.
        undisturbed: What it comes to with nothing going wrong.
        sites: How many places were reached, undisturbed: lines, yields, resumes and returns of user code, and points
            of the engine; and how often each.
        struck: How many faults struck, by kind. Two for a pair.
        pairs: How many plays had two faults.
        seconds: Real seconds, for all of it.
    """

    name: str
    undisturbed: Outcome = field(repr=False)
    sites: Mapping[Site, int] = field(repr=False)
    struck: Mapping[str, int]
    pairs: int
    seconds: float

    @property
    def commits(self) -> int:
        """How many transactions are committed, undisturbed."""
        return sum(count for site, count in self.sites.items() if site.name == COMMIT_AFTER)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.struck.items())
        pairs = f" ({self.pairs} pairs)" if self.pairs else ""
        return (
            f"{self.name}: {len(self.sites)} sites, reached {sum(self.sites.values())} times, {self.commits} commits; "
            f"survived {sum(self.struck.values())} faults{pairs} in {self.seconds:.1f} s: {kinds}"
        )


def every_crash(
    op: RunOp[Any],
    definitions: Iterable[Given],
    /,
    **scenario: Unpack[ScenarioOptions],
) -> Survived:
    """
    Lose the process just before each commit of the journal, and just after it, and see that nobody notices.

    Args:
        op: A call of a workflow or job.
        definitions: As for `Engine`.
        scenario: As for `Scenario`: the application's *tables*, *signals* and *callbacks* for what waits for them, a
            *ledger* of effects, *before* each play, *invariants*, and options of `Engine`.

    Raises:
        AssertionError: It does not survive one of them.
        UsageError: It is called while an event loop runs.
    """
    played = Scenario(op, definitions, **scenario)
    began = time.perf_counter()
    faults = [fault for fault in played.faults(("crash",)) if fault.site.name in _COMMITS]
    return _strike(played, [(fault,) for fault in faults], began)


def every_glitch(
    op: RunOp[Any],
    definitions: Iterable[Given],
    /,
    *,
    kinds: Iterable[Kind] = KINDS,
    sample: int | None = None,
    pairs: int = 0,
    seed: int = 0,
    **scenario: Unpack[ScenarioOptions],
) -> Survived:
    """
    One fault at every line, yield, resume and return of the definitions' source files, and at the engine's points.

    Each hit of a site is one of its own, so that loops are covered. Faults that nobody may notice (a crash, a commit
    that fails, a duplicate) must change nothing; after others (an exception, a cancellation, a clock that is set) the
    run may end otherwise, but the journal and the world must agree.

    Args:
        op: A call of a workflow or job.
        definitions: As for `Engine`.
        kinds: The kinds of faults; by default all there are, `KINDS`.
        sample: At most so many faults, drawn by *seed*; by default all.
        pairs: So many plays more with two faults, drawn by *seed*: the second while the first is being mended.
        seed: Of the samples: the same seed, the same faults.
        scenario: As for `every_crash`.

    Raises:
        AssertionError: It does not survive one of them.
        UsageError: It is called while an event loop runs, or a kind is not known.
    """
    played = Scenario(op, definitions, **scenario)
    began = time.perf_counter()
    faults = played.faults(kinds)
    struck: list[tuple[Fault, ...]] = [(fault,) for fault in _sampled(faults, sample, seed)]
    return _strike(played, [*struck, *pairs_of(faults, pairs, seed)], began)


def parametrize_faults(
    scenario: Scenario,
    argument: str = "fault",
    *,
    kinds: Iterable[Kind] = ("crash",),
    sample: int | None = None,
    seed: int = 0,
) -> pytest.MarkDecorator:
    """
    A test for each fault, by pytest: what `every_glitch` does in one.

        booked = Scenario(ride(42, "Main St 1"), [ride, notify_drivers])

        @parametrize_faults(booked)
        def test_survives(fault):
            booked.strike(fault)

    The scenario is played undisturbed when tests are collected.
    """
    import pytest  # noqa: PLC0415 - this alone needs it

    faults = _sampled(scenario.faults(kinds), sample, seed)
    return pytest.mark.parametrize(argument, [pytest.param(fault, id=str(fault)) for fault in faults])


def _strike(scenario: Scenario, plays: list[tuple[Fault, ...]], began: float) -> Survived:
    struck = Counter[str]()
    with dead_are_silent():
        for faults in plays:
            scenario.strike(*faults)
            struck.update(fault.kind for fault in faults)
    undisturbed = scenario.undisturbed()
    pairs = sum(len(faults) > 1 for faults in plays)
    seconds = time.perf_counter() - began
    return Survived(scenario.name, undisturbed.outcome, undisturbed.hits, dict(struck), pairs, seconds)


def _sampled(faults: list[Fault], sample: int | None, seed: int) -> list[Fault]:
    if sample is None or sample >= len(faults):
        return faults
    return random.Random(seed).sample(faults, sample)  # noqa: S311 - to be drawn again by the same seed

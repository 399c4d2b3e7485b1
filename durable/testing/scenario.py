"""
A scenario: one operation, played from its start to rest, undisturbed and with faults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack

from durable._core.authoring.registry import Given
from durable._core.program.ops import RunOp
from durable._core.program.requests import Request
from durable.testing._crash.faults import UNNOTICED, Fault, Kind, faults_at
from durable.testing._crash.invariants import CONSISTENT, STRICT, Invariant, Ledger, Outcome
from durable.testing._crash.playing import EngineOptions, Play, Played, World


class ScenarioOptions(EngineOptions, total=False):
    """What `Scenario` takes by name."""

    tables: str
    signals: Mapping[str | Request[Any, Any], Iterable[Any]] | None
    callbacks: Mapping[str, Iterable[Any]] | None
    ledger: Ledger | None
    before: Callable[[], object] | None
    invariants: Iterable[Invariant] | None
    downtime: float
    order: int | None
    patience: float


class Scenario:
    """
    One operation under test, and the world that it needs.

    Args:
        op: A call of a workflow or job: ``ride(42, "Main St 1")``.
        definitions: As for `Engine`; their source files are those whose lines faults strike.
        tables: SQL that makes the application's tables, if its transactions use any.
        signals: Payloads by name, sent one after the other as soon as a run waits for a signal of that name. By
            `Request`: questions, asked likewise.
        callbacks: Answers by name, given one after the other as soon as a run waits with a callback of that name open:
            values, or exceptions that it is failed with.
        ledger: Where steps write down what they do to the world.
        before: Called before each play: brings what is outside of the journal back to its beginning.
        invariants: What must hold, in place of `STRICT` (for faults nobody may notice) and `CONSISTENT` (for others).
        downtime: Seconds for which a process that was lost is gone. With any, timers may legally come first.
        order: A seed for the order of tasks that are ready at once, see `AutojumpLoop`.
        patience: Real seconds for one life of a process.
        options: Of `Engine`.
    """

    def __init__(
        self,
        op: RunOp[Any],
        definitions: Iterable[Given],
        *,
        tables: str = "",
        signals: Mapping[str | Request[Any, Any], Iterable[Any]] | None = None,
        callbacks: Mapping[str, Iterable[Any]] | None = None,
        ledger: Ledger | None = None,
        before: Callable[[], object] | None = None,
        invariants: Iterable[Invariant] | None = None,
        downtime: float = 0.0,
        order: int | None = None,
        patience: float = 20.0,
        **options: Unpack[EngineOptions],
    ) -> None:
        self.world = World(
            op,
            list(definitions),
            tables,
            {name: list(payloads) for name, payloads in (signals or {}).items()},
            {name: list(answers) for name, answers in (callbacks or {}).items()},
            Ledger() if ledger is None else ledger,
            before,
            downtime,
            order,
            patience,
            options,
        )
        self._invariants = None if invariants is None else tuple(invariants)
        self._undisturbed: Played | None = None

    @property
    def name(self) -> str:
        """Of the workflow or job."""
        name: str = self.world.op.definition.name
        return name

    def undisturbed(self) -> Played:
        """
        What it comes to if nothing happens.

        Raises:
            AssertionError: Twice it came to something else, or did not end.
        """
        if self._undisturbed is None:
            first, second = self.play(), self.play()
            problems = _problems(self._judges(()), second.outcome, first.outcome)
            if problems:
                told = "\n".join(f"  - {each}" for each in problems)
                msg = (
                    f"{self.name} does not come to the same twice, or does not hold what it must, with nothing "
                    f"going wrong (before=, or the fixture, should bring the world back to its beginning):\n{told}"
                )
                raise AssertionError(msg)
            self._undisturbed = first
        return self._undisturbed

    def faults(self, kinds: Iterable[Kind]) -> list[Fault]:
        """Every fault of *kinds*: at each hit of each site of the undisturbed play where it can strike."""
        return faults_at(self.undisturbed().hits, kinds)

    def strike(self, *faults: Fault) -> Outcome:
        """
        Play it with *faults*, one after the other.

        Raises:
            AssertionError: An invariant does not hold; or the first of the faults did not strike.
        """
        expected = self.undisturbed().outcome
        play = Play(self.world, faults)
        try:
            found = play.play().outcome
        except BaseException as error:
            error.add_note(f"while {self.name} was played with {', then '.join(map(str, faults))}")
            raise
        if len(play.pending) == len(faults) > 0:
            msg = (
                f"{faults[0]} did not strike: {self.name} reached that site {play.hits[faults[0].site]} times; its "
                "plays differ (threads, a random number, the machine's clock?), or a step remembers an earlier one"
            )
            raise AssertionError(msg)
        if problems := _problems(self._judges(faults), found, expected):
            told = "\n".join(f"  - {each}" for each in problems)
            msg = f"{self.name} does not survive {', then '.join(map(str, faults))}:\n{told}"
            raise AssertionError(msg)
        return found

    def play(self, *faults: Fault) -> Played:
        """Play it with *faults*, and judge nothing."""
        return Play(self.world, faults).play()

    def _judges(self, faults: Iterable[Fault]) -> tuple[Invariant, ...]:
        if self._invariants is not None:
            return self._invariants
        return STRICT if all(fault.kind in UNNOTICED for fault in faults) else CONSISTENT


def _problems(invariants: Iterable[Invariant], found: Outcome, expected: Outcome) -> list[str]:
    return [problem for invariant in invariants for problem in invariant(found, expected)]

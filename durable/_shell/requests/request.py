"""
What a request is: fields that say what is asked for, and a function of an open transaction that does it.

So it is recorded whole or not at all, in whatever state the runs are. The engine records requests in its
commit groups; a `Client` in another process sends them to the owner of the file or, where there is none,
records them by itself. Fields are plain, since they travel (see `wire`); what the loop of an engine must
know once a request is on disk goes into `Effects`, as with everything else that is committed.

To add one: its class in the module of what it is about, with a line in that module's `REQUESTS`, and the
method of a handle that asks for it.
"""

from __future__ import annotations

import itertools
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Final, Generic, Protocol, TypeVar

from attrs import field

from durable._core.admission import Places
from durable._core.codec.codec import Payload
from durable._core.codec.concealing import is_concealed
from durable._core.light_frozen import light_frozen
from durable._core.policies.limits import Rate
from durable._shell.reads.event_rows import last_run
from durable._shell.rows.rows import Effects, NewRun
from durable._shell.rows.schedule_row import ScheduleRow
from durable._shell.writes.schedule_writes import Tick
from durable.errors import EngineClosedError

#: What a request results in.
R_co = TypeVar("R_co", covariant=True)


def is_readable(recorded: Payload | None) -> bool:
    """Whether a value, or text, would say something to who reads the file. Those that were encrypted do not."""
    return isinstance(recorded, str) and recorded not in _SAY_NOTHING and not is_concealed(recorded)


def values_of(runs: Iterable[NewRun]) -> tuple[Payload, ...]:
    """The arguments of runs, and of those that follow them."""
    found: list[Payload] = []
    for run in runs:
        found += [
            run.started.value or "",
            *(signal.payload or "" for signal in run.signals),
            *values_of(run.follow_ups),
        ]
    return tuple(found)


_SAY_NOTHING: Final = frozenset(("", "null", "[]", "{}", "[[],{}]", "[[], {}]"))


class OwnSchedules(Protocol):
    """What an engine knows of its schedules beside the file: what they start, and when."""

    def run_of(self, name: str, run_id: str, now: float) -> NewRun: ...
    def next_tick(self, row: ScheduleRow, now: float) -> float | None: ...
    def lists(self, name: str) -> bool: ...
    def ticks_of(self, name: str, since: float, until: float, now: float) -> list[Tick]: ...


@light_frozen
class Env:
    """What a request cannot know by itself: the moment, and what only the owner of the file knows."""

    now: float
    #: The file's path.
    path: str
    #: Gives numbers to new runs. None, as what follows, where a client records by itself: then the file tells.
    allocate: Callable[[], int] | None = None
    #: The lines of the queues as the engine knows them.
    places: Places | None = None
    schedules: OwnSchedules | None = None
    #: Whether it begins nothing more.
    draining: bool = False
    #: Those that the program gives its queues.
    rates: Mapping[str, Rate] = field(factory=dict)
    #: Makes of a text about values what is recorded: who asks may have no codec, as the command line has none.
    conceal: Callable[[str], str] = str

    def numbers(self, conn: sqlite3.Connection) -> Callable[[], int]:
        """What gives numbers to new runs."""
        return self.allocate or itertools.count(last_run(conn) + 1).__next__


class JournalRequest(ABC, Generic[R_co]):
    """Something that is asked of a journal; see the module."""

    __slots__ = ()

    #: Whether it starts runs: then an engine that drains refuses it.
    starts_runs: ClassVar[bool] = False
    #: Whether steps may ask for it as long as they run: also while their engine closes, and nobody else may ask.
    for_steps: ClassVar[bool] = False

    @property
    def answered(self) -> tuple[str, Payload] | None:
        """The token of a callback, and the value that completes it: an engine looks whether it is of the right type."""
        return None

    @property
    def values(self) -> tuple[Payload, ...]:
        """Values, and texts about them, as they are to be recorded: where a journal encrypts its own, these must be."""
        return ()

    @property
    def texts(self) -> tuple[str, ...]:
        """As `values`, of what an engine encrypts that records it for others: who asks needs no codec then."""
        return ()

    @property
    def is_short(self) -> bool:
        """Whether it changes a few rows, whatever the file holds."""
        return False

    def prepared(self, env: Env) -> JournalRequest[R_co]:
        """
        Itself, with what only an engine's event loop can add. Not called where a client records by itself.

        Raises:
            EngineClosedError: The engine is draining, and this would start runs.
        """
        if env.draining and self.starts_runs:
            msg = "the engine is draining: it accepts no new runs"
            raise EngineClosedError(msg)
        return self

    @abstractmethod
    def record(self, conn: sqlite3.Connection, effects: Effects, env: Env) -> R_co:
        """
        Do what is asked for, in the transaction of *conn*; the result.

        Raises:
            DurableError: It is refused, or cannot be; nothing of it is kept.
        """

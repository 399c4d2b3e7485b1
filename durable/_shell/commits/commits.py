"""
Group commit: the turns of all runs that are ready, one transaction.

SQLite flushes once a transaction whatever its size, so turns and requests that arrive while a
flush is in progress wait and share the next one. One group is one function on the writer's
thread, between BEGIN IMMEDIATE and COMMIT: first all turns, then requests and transactions in
their order, each in a savepoint, so that one failing neither delays nor harms the others.

Promises: `turn` and `call` return only after their rows are on disk (as `durability` defines
it); the rows of one run keep their order; nothing is acknowledged before a successful COMMIT.
When the disk fails: requests get the error; turns wait and are written again, for the
executions behind them have no other state to go back to, and their steps must not run again.
A COMMIT that raised may have committed, so before writing again the file is opened anew and
asked whether it holds the group. When a member spoils its group, the group is taken apart: that
one alone gets the error, and all others are written.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar

from durable._core.codec.exceptions.safe_text import one_line
from durable._core.light_frozen import light_define
from durable._core.light_tuples import NamedTuple
from durable._core.policies.caps import DEFAULT_CAPS
from durable._core.program.saying import ROOM
from durable._core.supervision import FIRST_PAUSE, LONGEST_PAUSE
from durable._shell.commits.activity import Activity
from durable._shell.log import log
from durable._shell.loops import from_thread
from durable._shell.rows.rows import Effects, EventTuple, TurnWrite
from durable._shell.rows.said import ProgressMade, Said
from durable._shell.storage.connections import CommitUnknownError, is_of_the_machine, of_ours
from durable._shell.storage.database import Database
from durable._shell.storage.port import AnyDatabase
from durable._shell.writes.apart import apart
from durable._shell.writes.said_writes import write_said
from durable._shell.writes.turn_writes import TurnOutdatedError, begin_created, write_turns
from durable.errors import EngineClosedError, JournalDamagedError, JournalError, JournalIOError

T = TypeVar("T")

#: Largest group: bounds how long one transaction holds the writer.
MAX_GROUP = 256
#: Members of a group that may be written on the loop's thread, and what of a turn is written then, at most: so that the
#: loop waits for the disk, and for little else.
INLINE_MEMBERS = 2
INLINE_ROWS = 8
#: Items of streams and the like that are written with one group, at most.
MAX_WORDS = 5_000
#: Drivers notified in one iteration of the event loop that their turn is on disk: each then runs its code to the next
#: command, and the loop is the user's, too.
TOLD_AT_ONCE = 8
#: An iteration that took longer (seconds) is slow for other reasons: then four times as many are told in the next, or a
#: hundred runs would wait for a dozen of these.
SLOW_ITERATION = 0.004

_NOBODY: Final[Collection[int]] = ()

#: Counts the groups in which no event can tell whether they were committed.
_COUNT = """
INSERT INTO durable_meta (name, value) VALUES ('commits', 1)
ON CONFLICT (name) DO UPDATE SET
    value = CASE WHEN typeof(value) = 'integer' AND value BETWEEN 0 AND 1 << 60 THEN value + 1 ELSE 1 END
RETURNING value
"""


@light_define(eq=False)
class Turn:
    """A turn, and who waits until it is on disk."""

    write: TurnWrite
    future: asyncio.Future[bool]
    #: First turns of runs that it creates.
    firsts: Sequence[Turn] = ()

    def is_short(self) -> bool:
        """Whether it may be written on the loop's thread."""
        return len(self.write.events) + len(self.write.children) <= INLINE_ROWS


@light_define(eq=False)
class _Call:
    fn: Callable[[sqlite3.Connection, Effects], Any]
    future: asyncio.Future[Any]
    #: First turns of runs that it may create.
    firsts: Sequence[Turn] = ()
    #: Answered with the error when the disk fails, rather than written again.
    answers: bool = True
    #: Whether it may run again where what it wrote was rolled back: it leaves nothing else behind.
    repeats: bool = True
    #: Whether it writes a few rows, whatever the file holds, and runs no code of the application's.
    is_short: bool = False
    begun: bool = False
    outcome: Any = None
    error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Tell who waits that nothing of it is on disk."""
        if not self.future.done():
            self.future.set_exception(error)
        _not_begun(self.firsts)


class _Word(NamedTuple):
    """Something that running code said, and who waits until it is on disk, if somebody does."""

    said: Said
    future: asyncio.Future[None] | None


class Waiting:
    """Awaited: there is room again, or it is on disk."""

    __slots__ = ("_future", "_room", "is_awaited")

    def __init__(self, room: Callable[[], Coroutine[Any, Any, Any]], future: asyncio.Future[None] | None) -> None:
        self._room, self._future = room, future
        self.is_awaited = False

    def __await__(self) -> Generator[Any, None, None]:
        self.is_awaited = True
        if self._future is not None:
            yield from self._future.__await__()
        else:
            yield from self._room().__await__()


class _Group:
    """What one transaction writes. Made with its members; what few groups have is of the class until it is set."""

    #: What it caused, once it was written; and what tells afterwards whether it was committed.
    effects: Effects | None = None
    mark: int = 0
    #: Whether all of it are turns that were written, and of which nothing more came.
    is_plain: bool = False
    #: How many of its turns were told already that they are on disk.
    told: int = 0
    #: Whether a member has spoiled it: then its turns are written by halves, see `apart`.
    spoiled: bool = False
    #: Runs whose turns could not be written, and why.
    refused: Mapping[int, BaseException] = MappingProxyType({})
    #: What of a run could not be written, and why.
    unwritten: Sequence[tuple[Sequence[_Word], BaseException]] = ()

    def __init__(self, turns: list[Turn], calls: list[_Call], words: list[_Word]) -> None:
        self.turns = turns
        self.calls = calls
        self.words = words

    def __len__(self) -> int:
        return len(self.turns) + len(self.calls) + bool(self.words)

    def is_short(self) -> bool:
        """Whether writing it takes hardly longer than to commit it."""
        return (
            len(self) <= INLINE_MEMBERS
            and not self.words
            and not self.spoiled
            and all(call.is_short for call in self.calls)
            and all(turn.is_short() for turn in (*self.turns, *self.firsts()))
        )

    def firsts(self) -> list[Turn]:
        """The first turns that come with others of its members."""
        return [first for members in (self.turns, self.calls) for each in members for first in each.firsts]

    def event(self) -> EventTuple | None:
        """The row of an event that is in the file if and only if the group is."""
        written = self.turns
        if not self.is_plain and (effects := self.effects) is not None:
            unwritten = {*effects.listening, *self.refused}
            written = [turn for turn in written if turn.write.state.run not in unwritten]
            written += [turn for turn in self.firsts() if turn.write.state.run in effects.begun]
        for turn in written:
            if turn.write.events:
                return turn.write.events[-1]
        return None


class NotBegunError(Exception):
    """A run was not created, or not so that it may begin at once: nothing of its first turn is on disk."""


class SpoiledError(JournalError):
    """
    The group of a call could not be committed, and the call may be why: nothing is written of it. `cause` tells more.
    """

    def __init__(self, path: str, cause: Exception) -> None:
        super().__init__(path, f"a commit failed, and not for the disk: {one_line(cause)}")
        self.args = (path, cause)
        self.cause = cause


class Commits:
    """Collects what is to be written, and writes it."""

    def __init__(
        self,
        database: AnyDatabase,
        on_effects: Callable[[Effects], None],
        is_looked_on: Callable[[], bool],
        activity: Activity,
        room_for: int = DEFAULT_CAPS.stream_buffer,
        on_commit: Callable[[int, float], None] | None = None,
    ) -> None:
        self._database = database
        self._file = database if isinstance(database, Database) else None
        #: What may be said and not be on disk.
        self._room_for = room_for
        self._on_effects = on_effects
        #: Whether anybody hears of turns of which nothing more came.
        self._is_looked_on = is_looked_on
        self._activity = activity
        self._turns: list[Turn] = []
        self._calls: list[_Call] = []
        self._words: list[_Word] = []
        #: The latest progress of each run, which earlier progress gives way to.
        self._progress: dict[int, _Word] = {}
        #: Words that the loop has heard, and that are not on disk.
        self._unsaid = 0
        #: Said in threads, and not heard yet by the loop.
        self._from_threads: deque[_Word] = deque()
        self._hearing = False
        self._room = asyncio.Event()
        self._room.set()
        #: Those that get groups of their own.
        self._alone: list[_Call] = []
        self._wanted = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        #: Why nothing can be written at the moment, if so.
        self.trouble: JournalError | None = None
        #: Told of each group once it is on disk: its size, and the seconds that it took.
        self._on_commit = on_commit
        self.groups = 0
        self.writes = 0
        #: Seconds that writing them took, and those of the latest.
        self.seconds = 0.0
        self._latest = 0.0

    # --- for everybody ------------------------------------------------------------------------

    def turn(self, write: TurnWrite, firsts: Sequence[Turn] = ()) -> asyncio.Future[bool]:
        """
        Write one turn; done when it is on disk. False if something arrived that keeps the run active.

        With it *firsts*, the first turns of runs that it creates, see `first_turn`.

        Raises:
            TurnOutdatedError: It is to be made again with what came meanwhile: nothing of it was written.
        """
        future: asyncio.Future[bool] = self._loop.create_future()
        if self._closed:
            _not_begun(firsts)
            future.set_exception(_closed())
            return future
        if not self._turns:  # else it is wanted already
            self._want()
        self._turns.append(Turn(write, future, firsts))
        return future

    def first_turn(self, write: TurnWrite) -> Turn:
        """
        The first turn of a run, to be given to what creates it; its future is done as that of `turn`.

        It raises NotBegunError where nothing of it was written.
        """
        return Turn(write, self._loop.create_future())

    async def call(
        self,
        fn: Callable[[sqlite3.Connection, Effects], T],
        *,
        answers: bool = True,
        repeats: bool = True,
        is_short: bool = False,
        alone: bool = False,
        firsts: Sequence[Turn] = (),
    ) -> T:
        """
        The result of *fn*, run in a savepoint of the next group.

        A cancelled caller does not undo it.

        Args:
            fn: Runs on the writer's thread. Whatever it raises is raised here.
            answers: False waits out a failing disk, as turns do.
            repeats: Whether *fn* may run again, if what it wrote was rolled back.
            is_short: Whether *fn* writes a few rows, whatever the file holds.
            alone: Gives it a group of its own.
            firsts: First turns of runs that *fn* may create, see `first_turn`: they are written with these.

        Raises:
            JournalError: The group could not be committed.
            SpoiledError: One of its members is why: this one, if it is *alone*.
        """
        if self._closed:
            _not_begun(firsts)
            raise _closed()
        future: asyncio.Future[Any] = self._loop.create_future()
        (self._alone if alone else self._calls).append(_Call(fn, future, firsts, answers, repeats, is_short))
        self._want()
        result: T = await future
        return result

    def say(self, said: Said, *, sync: bool = False) -> Awaitable[None]:
        """
        Write *said* with the next group: before any turn that is asked for later.

        To be awaited by who waits until there is room for more; with *sync*, until it is on disk.

        Raises:
            EngineClosedError: Nothing is written any more.
        """
        if self._closed:
            raise _closed()
        future: asyncio.Future[None] | None = self._loop.create_future() if sync else None
        word = _Word(said, future)
        if isinstance(said, ProgressMade):
            self._unsaid += said.run not in self._progress
            self._progress[said.run] = word
        else:
            self._unsaid += 1
            self._words.append(word)
        self._make_room()
        self._want()
        return ROOM if future is None and self._room.is_set() else Waiting(self._room.wait, future)

    def say_in_thread(self, said: Said, *, sync: bool = False) -> Awaitable[None]:
        """As `say`, in a thread, which waits here: many of them make the loop hear once."""
        if self._closed:
            raise _closed()
        if sync:
            from_thread(self._loop, self._said_to_disk(said))
            return ROOM
        if self.unsaid >= self._room_for:
            from_thread(self._loop, self._waited_for_room())
        self._from_threads.append(_Word(said, None))
        if not self._hearing:
            self._hearing = True
            self._loop.call_soon_threadsafe(self._hear)
        return ROOM

    async def _said_to_disk(self, said: Said) -> None:
        self._hear()  # what was said before comes first
        await self.say(said, sync=True)

    async def _waited_for_room(self) -> None:
        self._hear()
        await self._room.wait()

    def _hear(self) -> None:
        self._hearing = False
        while self._from_threads:
            word = self._from_threads.popleft()
            if not self._closed:
                self.say(word.said)
        self._make_room()

    def is_crowded_by(self, last: Awaitable[None]) -> bool:
        """
        Whether one is to say no more who was given *last* to await, when he spoke before.

        Only if he did not: another who crowds the buffer is not his fault.
        """
        return self.unsaid >= 2 * self._room_for and isinstance(last, Waiting) and not last.is_awaited

    @property
    def unsaid(self) -> int:
        """How much was said that is not on disk."""
        return self._unsaid + len(self._from_threads)

    def _make_room(self) -> None:
        """Have those who wait for room continue, or wait."""
        if self.unsaid < self._room_for:
            self._room.set()
        else:
            self._room.clear()

    def _want(self) -> None:
        """Have what is waiting written: from here until nothing is, this is in progress."""
        if not self._wanted.is_set():
            self._wanted.set()
            self._activity.begin()

    def close(self) -> None:
        """Accept nothing more; what is waiting is still written."""
        self._closed = True
        self._want()

    def fail(self, error: Callable[[], Exception]) -> None:
        """Write nothing more: the file is not to be trusted. Who waits gets an *error* of his own."""
        self.close()
        self._give_up(self._next_group(), error())
        self._give_up(_Group(self._turns, self._calls, [*self._words, *self._progress.values()]), error())
        self._turns, self._calls, self._words = [], [], []
        self._progress.clear()

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write groups until closed. Runs in a task of its own, which nothing cancels."""
        while True:
            if self._turns or self._calls or self._alone or self._words or self._progress:
                await self._commit(self._next_group())
                continue
            if self._wanted.is_set():
                self._wanted.clear()
                self._activity.end()
            if self._closed:
                return
            await self._wanted.wait()

    def _next_group(self) -> _Group:
        if self._alone:
            return _Group([], [self._alone.pop(0)], [])
        return self._next_members()

    def _next_members(self) -> _Group:
        words: list[_Word] = []
        if self._words or self._progress:
            words, self._words = self._words[:MAX_WORDS], self._words[MAX_WORDS:]
            words += self._progress.values()
            self._progress.clear()
            if self._words:  # no outcome is to overtake what its step has said
                return _Group([], [], words)
        group = _Group(self._turns[:MAX_GROUP], self._calls[:MAX_GROUP], words)
        del self._turns[:MAX_GROUP], self._calls[:MAX_GROUP]
        return group

    async def _commit(self, group: _Group) -> None:
        pause = FIRST_PAUSE
        while group:
            try:
                await self._written(group)
            except CommitUnknownError as error:
                if await self._reopened(group, error) and await self._is_on_disk(group):
                    await self._succeeded(group)
                    return
                self._failed(group, error.cause)
            except JournalIOError as error:
                self._failed(group, error)
                await self._reopened(group)
            except JournalDamagedError as error:  # no pause mends that; what is on other pages can still be written
                await self._spoiled(group, error)
                continue
            except JournalError as error:
                self._failed(group, error)
            except Exception as error:  # noqa: BLE001 - one of the members is the suspect, not the engine
                await self._spoiled(group, error)
                continue
            else:
                await self._succeeded(group)
                return
            if group:
                if self._closed:
                    self._give_up(group, self.trouble or _closed())
                    return
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
                # What came meanwhile is tried with it, and hears the error too if it fails again.
                later = self._next_members()
                group.turns += later.turns
                group.calls += later.calls
                group.words += later.words

    async def _written(self, group: _Group) -> None:
        began = time.perf_counter()
        write, file = partial(_write, group=group, path=self._database.path), self._file
        if file is None:
            await self._database.write(write)
        elif file.may_write_inline and group.is_short():
            file.write_inline(write)
        else:
            await file.write(write, partial(self._tell_early, group))
        self._latest = time.perf_counter() - began

    def _tell_early(self, group: _Group) -> None:
        """
        The loop hears just now that *group* is on disk: tell the first turns, where nothing else is to be told.

        Their drivers go on in the next iteration, and not in the one after that, and `_answer` follows upon them. Only
        futures are set, since this is in nobody's task: all else may fail, or wants the context of the engine.
        """
        if group.is_plain and not self._is_looked_on():
            _tell(group.turns[:TOLD_AT_ONCE], _NOBODY)
            group.told = TOLD_AT_ONCE

    async def _succeeded(self, group: _Group) -> None:
        if self.trouble is not None:
            log.info("commit.recovered")
            self.trouble = None
        await self._answer(group)

    def _failed(self, group: _Group, error: JournalError) -> None:
        if self.trouble is None:
            log.error("commit.failed", error=str(error))
        self.trouble = error
        kept = [call for call in group.calls if not call.answers]
        for call in group.calls:
            if call.answers:
                call.fail(error)
        group.calls = kept

    async def _spoiled(self, group: _Group, error: Exception) -> None:
        """Leave in *group* what may be written again, taken apart: nobody else is to fail by *error*."""
        log.error("commit.failed", error=one_line(error), members=len(group))
        if len(group) == 1 and (group.spoiled or not group.words):
            bare = group.turns or isinstance(error, JournalError)
            self._give_up(group, error if bare else SpoiledError(self._database.path, error))
            return
        doubtful = [call for call in group.calls if call.begun and not call.repeats]
        if doubtful or not group.spoiled:
            group.spoiled = True
            group.calls = [call for call in group.calls if call not in doubtful]
            self._give_up(_Group([], doubtful, []), SpoiledError(self._database.path, error))
            return
        if group.words:
            words, group.words = group.words, []
            await self._commit(_Group([], [], words))
        turns, calls, group.turns, group.calls = group.turns, group.calls, [], []
        for turn in turns:
            await self._commit(_Group([turn], [], []))
        for call in calls:
            await self._commit(_Group([], [call], []))

    def _give_up(self, group: _Group, error: BaseException) -> None:
        for turn in group.turns:
            if not turn.future.done():
                turn.future.set_exception(error)
            _not_begun(turn.firsts)
        for call in group.calls:
            call.fail(error)
        self._unwritten(group.words, error)
        self._heard(group.words)
        group.turns, group.calls, group.words = [], [], []

    def _unwritten(self, words: Sequence[_Word], error: BaseException) -> None:
        """Tell that *words* are lost: those who wait, or the log."""
        if words:
            log.error("items.lost", error=one_line(error), items=len(words), run=words[0].said.run)
        for word in words:
            if word.future is not None and not word.future.done():
                word.future.set_exception(error)

    def _heard(self, words: Sequence[_Word]) -> None:
        """Nothing more becomes of *words*."""
        self._unsaid -= len(words)
        self._make_room()

    async def settle(self, write: TurnWrite, error: CommitUnknownError) -> bool:
        """Whether *write* is in the file after a commit of its own raised *error*; the file is opened anew."""
        group = _Group([Turn(write, self._loop.create_future())], [], [])
        log.error("commit.failed", error=str(error))
        return await self._reopened(_Group([], [], []), error) and await self._is_on_disk(group)

    async def settle_mark(self, marked: int, error: CommitUnknownError) -> bool:
        """As `settle`, of a transaction without events that has set a `mark`."""
        group = _Group([], [], [])
        group.mark = marked
        log.error("commit.failed", error=str(error))
        return await self._reopened(_Group([], [], []), error) and await self._is_on_disk(group)

    async def reopen(self) -> None:
        """Open the file anew after an error outside of a group."""
        await self._reopened(_Group([], [], []))

    async def _reopened(self, group: _Group, unknown: CommitUnknownError | None = None) -> bool:
        """Open the file anew, however long it takes; False if the engine is closed before it opens."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self._database.reopen()
            except JournalError as error:
                self._failed(group, unknown or error)
                for asked in (self._calls, self._alone):  # so that those who asked meanwhile are not left waiting
                    self._failed(_Group([], [*asked], []), error)
                    asked[:] = [call for call in asked if not call.answers]
                if self._closed:
                    return False
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
            else:
                return True

    async def _is_on_disk(self, group: _Group) -> bool:
        """Read back, from a file opened anew, whether *group* was committed."""
        event, mark = group.event(), group.mark

        def find(conn: sqlite3.Connection) -> bool:
            if event is None:
                found = conn.execute("SELECT value FROM durable_meta WHERE name = 'commits'").fetchone()
                return bool(found == (mark,))
            row = conn.execute(
                "SELECT checksum FROM durable_events WHERE run = ? AND seq = ?", (event[0], event[1])
            ).fetchone()
            return row is not None and row[0] == event[-1]

        while True:
            try:
                return await self._database.read(find)
            except JournalError as error:
                self._failed(_Group([], [], []), error)
                if self._closed:
                    return False
                await asyncio.sleep(LONGEST_PAUSE)

    async def _answer(self, group: _Group) -> None:
        """
        Tell everybody that the group is on disk, spread over iterations of the loop.

        The next group begins only then, with what all of these lead to. To write it meanwhile gains nothing: the
        writer's thread would get the interpreter's lock (GIL) only when the loop has nothing to do, and each group
        costs a flush.
        """
        size = len(group.turns) + len(group.calls)
        self.groups += 1
        self.writes += size
        self.seconds += self._latest
        if self._on_commit is not None:
            self._on_commit(size, self._latest)
        turns, kept, told, most = group.turns, _NOBODY, group.told, TOLD_AT_ONCE
        if not told and not (group.is_plain and not self._is_looked_on()):
            turns, kept = self._act_on(group)
        while told < len(turns):
            began = self._loop.time()
            _tell(turns[told : told + most], kept)
            told += most
            await asyncio.sleep(0)
            most = TOLD_AT_ONCE if self._loop.time() - began < SLOW_ITERATION else 4 * TOLD_AT_ONCE

    def _act_on(self, group: _Group) -> tuple[list[Turn], Collection[int]]:
        """Act on what *group* caused; the turns that are to be told, and the runs that something keeps active."""
        effects = group.effects
        assert effects is not None, "it is on disk"
        kept, listening = effects.kept, effects.listening
        self._on_effects(effects)
        for turn in group.turns if listening or group.refused else ():
            if turn.future.done():
                continue
            if turn.write.state.run in listening:
                turn.future.set_exception(TurnOutdatedError())
            elif (error := group.refused.get(turn.write.state.run)) is not None:
                turn.future.set_exception(error)
        for words, error in group.unwritten:
            self._unwritten(words, error)
        for word in group.words:
            if word.future is not None and not word.future.done():
                word.future.set_result(None)
        if group.words:
            self._heard(group.words)
        turns = group.turns
        if firsts := group.firsts():
            begun = effects.begun
            turns = [*turns, *(turn for turn in firsts if turn.write.state.run in begun)]
            _not_begun([turn for turn in firsts if turn.write.state.run not in begun])
        for call in group.calls:
            if call.future.done():
                continue
            if call.error is not None:
                call.future.set_exception(call.error)
            else:
                call.future.set_result(call.outcome)
        return turns, kept


def _tell(turns: list[Turn], kept: Collection[int]) -> None:
    for turn in turns:
        if not turn.future.done():
            turn.future.set_result(not kept or turn.write.state.run not in kept)


def _not_begun(turns: Sequence[Turn]) -> None:
    for turn in turns:
        if not turn.future.done():
            turn.future.set_exception(NotBegunError())


def _write(conn: sqlite3.Connection, group: _Group, path: str) -> None:
    effects = group.effects = Effects()
    if group.words and group.spoiled:
        lost = apart(conn, _by_run(group.words), _write_words, effects)
        group.unwritten = [(words, of_ours(error, path)) for words, error in lost]
    elif group.words:
        _write_words(conn, [group.words], effects)
    writes = [turn.write for turn in group.turns]
    if group.spoiled:
        refused = apart(conn, writes, write_turns, effects)
        group.refused = {write.state.run: of_ours(error, path) for write, error in refused}
    elif writes:
        write_turns(conn, writes, effects)
    if firsts := [first.write for turn in group.turns for first in turn.firsts]:
        begin_created(conn, firsts, effects)
    for call in group.calls:
        _run_call(conn, call, effects, path)
    group.is_plain = not (group.calls or group.words or firsts or group.refused) and effects.is_plain
    if group.event() is None:
        group.mark = mark(conn)


def _by_run(words: Sequence[_Word]) -> list[list[_Word]]:
    found: dict[int, list[_Word]] = {}
    for word in words:
        found.setdefault(word.said.run, []).append(word)
    return list(found.values())


def _write_words(conn: sqlite3.Connection, words: Sequence[Sequence[_Word]], effects: Effects) -> None:
    write_said(conn, (word.said for some in words for word in some), effects)


def mark(conn: sqlite3.Connection) -> int:
    """What tells later whether this transaction was committed, if none of its events can: a number in the file."""
    ((count,),) = conn.execute(_COUNT).fetchall()
    return int(count)


def _run_call(conn: sqlite3.Connection, call: _Call, effects: Effects, path: str) -> None:
    conn.execute("SAVEPOINT durable_call")
    mine = Effects()
    call.begun = True
    try:
        call.outcome, call.error = call.fn(conn, mine), None
        if call.firsts:
            begin_created(conn, [turn.write for turn in call.firsts], mine)
    except BaseException as error:
        if not conn.in_transaction or is_of_the_machine(error):
            raise  # not the call's own: the whole group must go back
        conn.execute("ROLLBACK TO durable_call")
        conn.execute("RELEASE durable_call")
        call.outcome, call.error = None, of_ours(error, path)  # the caller's error, handed back to the caller
    else:
        conn.execute("RELEASE durable_call")
        effects.add(mine)


def _closed() -> EngineClosedError:
    return EngineClosedError("the engine is closed: nothing more can be recorded through it")

"""
What every journal promises, on a file and in memory alike: turns, wake-ups, timers, keys, requests.

Below the engine: requests and functions of `turn_writes`, `run_writes` and `wakeups` through the database
port, with runs that are rows only. Time is a number that the test chooses.
"""

import itertools

import pytest
from attrs import evolve

from durable._core.journal.events import (
    CancelRequested,
    ChildFailed,
    ChildSucceeded,
    RunCancelled,
    RunContinued,
    RunFailed,
    RunStarted,
    RunSucceeded,
    SignalReceived,
    StepStarted,
    StepSucceeded,
    TimerFired,
)
from durable._core.journal.waits import Wait
from durable._core.run.decision import Decision
from durable._core.statuses import ENDS, NEW, RUN_TRANSITIONS, STATUSES, Cause
from durable._shell.claims import slots
from durable._shell.reads import event_rows
from durable._shell.reads.run_rows import run_by_id
from durable._shell.reports.exporting import load_run_history
from durable._shell.requests.history_requests import ImportRuns, RetryRun
from durable._shell.requests.request import Env
from durable._shell.requests.run_requests import CancelRun, PauseRun, ResumeRun, SendSignal
from durable._shell.rows.rows import Effects, LastTurn, NewRun, RunState, TurnWrite, read_events
from durable._shell.storage import schema
from durable._shell.storage.copies import marks
from durable._shell.storage.database import Database
from durable._shell.storage.memory import MemoryDatabase
from durable._shell.writes import run_writes, wakeups
from durable._shell.writes.turn_writes import write_turns
from durable.errors import KeyConflictError, RunExistsError, RunStateError

pytestmark = pytest.mark.anyio
LARGE = '"' + "x" * 5_000 + '"'


def new_run(
    number, run_id=None, *, key=None, arguments="same", chosen=False, due_at=None, parent=None, position="0",
    on_conflict="join",
):  # fmt: skip
    run_id = run_id or f"run-{number}"
    return NewRun(
        run=number, run_id=run_id, workflow="w", version=1, kind="workflow", queue="default", priority=0, key=key,
        arguments=arguments, labels={}, started=RunStarted("w", 1, run_id, "[[],{}]", float(number)), due_at=due_at,
        timeout=None, parent=parent, position=position, on_conflict=on_conflict, chosen_id=chosen,
    )  # fmt: skip


class Journal:
    """A database and the runs in it, with one call for each kind of transaction."""

    def __init__(self, database):
        self.database = database
        self.states = {}

    async def start(self, *runs):
        effects = Effects()

        def write(conn):
            return [run_writes.get_or_create(conn, run, effects) for run in runs]

        ids = await self.database.write(write)
        for run in runs:
            self.states.setdefault(run.run, self._state(run))
        return ids, effects

    def _state(self, run):
        state = RunState(run.run, run.run_id, run.workflow, run.queue)
        state.append([run.started])
        return state

    def turn(self, run, *events, status=None, inbox_upto=0, children=(), **decided):
        decision = Decision(list(events), **decided)
        rows = self.states[run].append(events)
        turn = TurnWrite(self.states[run], 10.0, decision, rows, inbox_upto, status)
        turn.children = children
        return turn

    def last_turn(self, run, event, status, *, then=(), successor=None, unconsumed=(), **decided):
        turn = self.turn(run, event, *then, status=status, ended=status, **decided)
        last = LastTurn(turn.state, turn.at, turn.decision, turn.events, status=status)
        last.allocate, last.successor, last.unconsumed = (lambda: 0), successor, unconsumed
        return last

    async def commit(self, *turns):
        effects = Effects()
        await self.database.write(lambda conn: write_turns(conn, turns, effects))
        for turn in turns:
            for child in turn.children:
                self.states.setdefault(child.run, self._state(child))
        return effects

    async def request(self, request, now):
        effects, env = Effects(), Env(now, self.database.path)
        return await self.database.write(lambda conn: request.record(conn, effects, env)), effects

    async def fire(self, now):
        effects = Effects()
        return await self.database.write(lambda conn: wakeups.fire_due(conn, now, 100, effects)), effects

    async def query(self, sql, *values):
        return await self.database.read(lambda conn: conn.execute(sql, values).fetchall())

    async def status(self, run):
        return (await self.query("SELECT status FROM durable_runs WHERE run = ?", run))[0][0]

    async def inbox(self, run):
        items = await self.database.read(lambda conn: event_rows.load_items(conn, run, 0))
        return [each.event for each in items]

    async def upto(self, run):
        return (await self.query("SELECT coalesce(max(item), 0) FROM durable_inbox WHERE run = ?", run))[0][0]

    async def parent(self, members, wake_on="all"):
        """A run 1 that waits for so many children, numbered from 2."""
        await self.start(new_run(1))
        children = [new_run(2 + n, f"run-1/{n}", parent=1, position=f"0.{n}") for n in range(members)]
        waits = [Wait(f"0.{n}", "child", "0", wake_on, run_id=f"run-1/{n}") for n in range(members)]
        effects = await self.commit(self.turn(1, status="waiting", children=children, waits=waits))
        assert [ready.run for ready in effects.ready] == [2 + n for n in range(members)]

    def end(self, run, value='"ok"'):
        return self.last_turn(run, RunSucceeded(value, 10.0), "succeeded", outcome=value)

    def failure(self, run):
        return self.last_turn(run, RunFailed([], '"bad"', 10.0), "failed", outcome='"bad"', reason="bad")


@pytest.fixture(params=["file", "memory"])
async def journal(request, tmp_db):
    kind = Database if request.param == "file" else MemoryDatabase
    database = await kind.open(
        tmp_db, inspect=lambda conn: marks.inspect(conn, str(tmp_db)), prepare=lambda conn: schema.prepare(conn, 0.0)
    )
    yield Journal(database)
    await database.aclose()


class TestTurns:
    async def test_turns_of_a_run_are_read_back_in_order_and_match_their_checksums(self, journal):
        await journal.start(new_run(1))
        written = [StepStarted(str(n), "s", 1, "", "", float(n)) for n in range(3)]
        for event in written:
            await journal.commit(journal.turn(1, event, status="running"))
        loaded = await journal.database.read(lambda conn: event_rows.load_run(conn, 1))
        state = RunState(1, "run-1", "w", "default")
        assert read_events("", state, loaded.rows)[1:] == written
        assert (state.seq, state.chain) == (journal.states[1].seq, journal.states[1].chain)

    async def test_a_turn_is_written_whole_or_not_at_all(self, journal):
        await journal.start(new_run(1))
        child, wait = new_run(2, "run-1~.0"), Wait("0", "child", "0")
        event = StepStarted("0", "s", 1, "", "", 1.0)
        broken = journal.turn(1, event, status="waiting", children=[child, child], waits=[wait])
        with pytest.raises(Exception, match="UNIQUE"):
            await journal.commit(broken)
        assert await journal.query("SELECT count(*) FROM durable_events") == [(1,)]
        assert await journal.query("SELECT count(*) FROM durable_waits") == [(0,)]
        assert await journal.status(1) == "pending"

    async def test_a_large_payload_is_stored_once_by_content_and_read_back(self, journal):
        await journal.start(new_run(1), new_run(2))
        for run in (1, 2):
            await journal.commit(journal.turn(run, StepSucceeded("0", LARGE, 1.0), status="running"))
        assert await journal.query("SELECT value FROM durable_payloads") == [(LARGE,)]
        loaded = await journal.database.read(lambda conn: event_rows.load_run(conn, 2))
        assert read_events("", RunState(2, "run-2", "w", "q"), loaded.rows)[-1].value == LARGE

    async def test_what_a_turn_took_in_leaves_the_inbox_and_what_came_later_stays(self, journal):
        await journal.start(new_run(1))
        await journal.request(SendSignal("run-1", "a", "1"), now=5.0)
        upto = await journal.upto(1)
        await journal.request(SendSignal("run-1", "b", "1"), now=5.0)
        await journal.commit(journal.turn(1, SignalReceived("a", "1", 5.0), inbox_upto=upto, status="running"))
        assert [event.name for event in await journal.inbox(1)] == ["b"]


class TestWakeUps:
    async def test_the_last_member_of_a_group_wakes_its_parent_and_the_others_do_not(self, journal):
        await journal.parent(3)
        for run in (2, 3):
            effects = await journal.commit(journal.end(run))
            assert effects.ready == []
            assert await journal.status(1) == "waiting"
        effects = await journal.commit(journal.end(4))
        assert [ready.run for ready in effects.ready] == [1]
        assert await journal.inbox(1) == [ChildSucceeded(f"0.{n}", '"ok"', 10.0) for n in range(3)]
        assert await journal.query("SELECT * FROM durable_waits") == []

    async def test_members_that_end_in_one_commit_wake_their_parent_once(self, journal):
        await journal.parent(2)
        effects = await journal.commit(journal.end(2), journal.end(3))
        assert [ready.run for ready in effects.ready] == [1]
        assert len(await journal.inbox(1)) == 2

    async def test_a_group_that_fails_fast_wakes_at_its_first_failure(self, journal):
        await journal.parent(3, wake_on="failure")
        assert (await journal.commit(journal.end(2))).ready == []
        assert [ready.run for ready in (await journal.commit(journal.failure(3))).ready] == [1]
        assert [type(event) for event in await journal.inbox(1)] == [ChildSucceeded, ChildFailed]
        assert (await journal.commit(journal.end(4))).ready == []

    async def test_a_race_wakes_at_its_first_member(self, journal):
        await journal.parent(2, wake_on="any")
        assert [ready.run for ready in (await journal.commit(journal.end(3))).ready] == [1]
        later = await journal.commit(journal.end(2))
        assert (later.ready, later.arrived) == ([], {1})

    async def test_a_run_is_kept_if_something_arrived_while_its_turn_was_decided(self, journal):
        """The turn that would free it does not; its driver is told, and takes the arrival in."""
        await journal.start(new_run(1))
        await journal.commit(journal.turn(1, status="running"))
        _, effects = await journal.request(CancelRun("run-1", ""), now=5.0)
        assert effects.arrived == {1}
        effects = await journal.commit(journal.turn(1, status="waiting"))
        assert effects.kept == {1}
        assert await journal.status(1) == "running"

    async def test_a_child_that_ends_in_the_commit_that_frees_its_parent_is_not_missed(self, journal):
        await journal.start(new_run(1))
        child, wait = new_run(2, "run-1~.0"), Wait("0", "child", "0", run_id="run-1~.0")
        await journal.commit(journal.turn(1, status="running", children=[child], waits=[wait]))
        effects = await journal.commit(journal.end(2), journal.turn(1, status="waiting"))
        assert [ready.run for ready in effects.ready] == [1] or effects.kept == {1}

    @pytest.mark.parametrize("ends_first", [True, False])
    async def test_a_member_that_ends_while_the_turn_of_the_other_is_written_is_not_missed(self, journal, ends_first):
        """A gather of a child and a signal: a turn that has read the signal, and not the end of the child, frees it."""
        await journal.start(new_run(1))
        child, wait = (
            new_run(2, "run-1~.0.0", parent=1, position="0.0"),
            Wait("0.0", "child", "0", "all", run_id="run-1~.0.0"),
        )
        signal = Wait("0.1", "signal", "0", "all", name="go")
        await journal.commit(journal.turn(1, status="waiting", children=[child], waits=[wait, signal]))
        await journal.request(SendSignal("run-1", "go", "1"), now=5.0)
        taken = await journal.upto(1)
        turn = journal.turn(1, status="waiting", inbox_upto=taken, waits_closed=[signal])
        if ends_first:
            assert (await journal.commit(journal.end(2))).ready == []  # a row of its group is left
            effects = await journal.commit(turn)
            assert (effects.kept, effects.arrived) == ({1}, {1})
        else:
            await journal.commit(turn)
            effects = await journal.commit(journal.end(2))
            assert [ready.run for ready in effects.ready] == [1]
        assert await journal.inbox(1) == [ChildSucceeded("0.0", '"ok"', 10.0)]

    async def test_a_wait_for_a_run_that_has_ended_is_over_at_once(self, journal):
        await journal.start(new_run(1), new_run(2))
        await journal.commit(journal.end(2))
        effects = await journal.commit(
            journal.turn(1, status="waiting", waits=[Wait("0", "child", "0", run_id="run-2")])
        )
        assert effects.kept == {1}
        assert await journal.inbox(1) == [ChildSucceeded("0", '"ok"', 10.0)]


class TestSignals:
    async def test_a_signal_wakes_the_run_that_waits_for_it_and_no_other_name_does(self, journal):
        await journal.start(new_run(1))
        await journal.commit(journal.turn(1, status="waiting", waits=[Wait("0", "signal", "0", name="go")]))
        _, effects = await journal.request(SendSignal("run-1", "no", "1"), now=5.0)
        assert (effects.ready, effects.arrived) == ([], set())
        _, effects = await journal.request(SendSignal("run-1", "go", "1"), now=5.0)
        assert [ready.run for ready in effects.ready] == [1]
        assert [event.name for event in await journal.inbox(1)] == ["no", "go"]

    async def test_a_signal_sent_early_keeps_the_run_that_would_wait_for_it(self, journal):
        await journal.start(new_run(1))
        await journal.request(SendSignal("run-1", "go", "1"), now=5.0)
        wait = Wait("0", "signal", "0", name="go")
        effects = await journal.commit(journal.turn(1, status="waiting", waits=[wait]))
        assert (effects.kept, effects.arrived) == ({1}, {1})

    async def test_a_dedup_id_is_accepted_once_also_by_the_run_that_it_continued_as(self, journal):
        await journal.start(new_run(1))
        signal = SendSignal("run-1", "go", "1", "x")
        assert [(await journal.request(signal, now=5.0))[0] for _ in range(2)] == [True, False]
        await journal.commit(continued(journal))
        assert (await journal.request(signal, now=5.0))[0] is False

    async def test_a_run_that_has_ended_takes_no_signal(self, journal):
        await journal.start(new_run(1))
        await journal.commit(journal.end(1))
        with pytest.raises(RunStateError):
            await journal.request(SendSignal("run-1", "go", "1"), now=5.0)


def continued(journal, signals=()):
    event = RunContinued("run-1+1", "w", 10.0)
    successor = new_run(9, "run-1+1")
    return journal.last_turn(1, event, "succeeded", successor=successor, unconsumed=signals)


class TestContinuing:
    async def test_key_parent_and_waiters_go_over_to_the_successor(self, journal):
        await journal.start(new_run(1, key="k"), new_run(2))
        await journal.commit(journal.turn(2, status="waiting", waits=[Wait("0", "child", "0", run_id="run-1")]))
        effects = await journal.commit(continued(journal))
        assert [ready.run for ready in effects.ready] == [9]
        assert await journal.status(2) == "waiting"
        assert (await journal.start(new_run(10, key="k")))[0] == ["run-1+1"]
        journal.states[9] = RunState(9, "run-1+1", "w", "default", 1)
        effects = await journal.commit(journal.end(9))
        assert [ready.run for ready in effects.ready] == [2]

    async def test_signals_that_nobody_took_go_over_in_their_order(self, journal):
        """P7: those in the history come before those in the inbox, and the successor looks there."""
        await journal.start(new_run(1))
        await journal.request(SendSignal("run-1", "go", "2"), now=6.0)
        effects = await journal.commit(continued(journal, [SignalReceived("go", "1", 5.0)]))
        assert effects.arrived == {9}
        assert [event.value for event in await journal.inbox(9)] == ["1", "2"]
        assert await journal.inbox(1) == []

    async def test_a_cancel_that_no_turn_took_in_goes_over(self, journal):
        """Promise 12 of the design: acknowledged, it is not lost with the run that ends by itself just then."""
        await journal.start(new_run(1))
        await journal.request(CancelRun("run-1", "enough"), now=6.0)
        effects = await journal.commit(continued(journal))
        assert [event.reason for event in await journal.inbox(9)] == ["enough"]
        assert [ready.run for ready in effects.unborn] == [9]

    async def test_a_pause_that_no_turn_saw_goes_over(self, journal):
        """The successor waits for the person who paused it, and goes on when that one says so."""
        await journal.start(new_run(1))
        await journal.request(PauseRun("run-1"), now=6.0)
        await journal.commit(continued(journal))
        assert await journal.status(9) == "paused"
        _, effects = await journal.request(ResumeRun("run-1"), now=7.0)
        assert [ready.run for ready in effects.ready] == [9]

    async def test_a_cancel_wins_over_a_pause_that_goes_over(self, journal):
        """It has to end, resumed or not."""
        await journal.start(new_run(1))
        await journal.request(PauseRun("run-1"), now=6.0)
        await journal.commit(continued(journal, [CancelRequested("enough", 5.0)]))
        assert await journal.status(9) == "pending"
        assert [event.reason for event in await journal.inbox(9)] == ["enough"]


class TestTimers:
    async def test_a_timer_fires_once_not_before_it_is_due(self, journal):
        await journal.start(new_run(1))
        wait = Wait("0", "timer", "0", fire_at=20.0)
        effects = await journal.commit(journal.turn(1, status="waiting", waits=[wait]))
        assert effects.next_fire_at == 20.0
        assert [(await journal.fire(now))[0] for now in (19.9, 20.0, 20.1)] == [0, 1, 0]
        assert await journal.inbox(1) == [TimerFired("0", 20.0)]
        assert await journal.status(1) == "running"

    async def test_a_wait_that_was_closed_does_not_fire(self, journal):
        await journal.start(new_run(1))
        wait = Wait("0", "timer", "0", fire_at=20.0)
        await journal.commit(journal.turn(1, status="waiting", waits=[wait]))
        await journal.commit(journal.turn(1, status="waiting", waits_closed=[wait]))
        assert (await journal.fire(30.0))[0] == 0

    async def test_a_delayed_run_becomes_ready_when_its_time_has_come(self, journal):
        _, effects = await journal.start(new_run(1, due_at=20.0))
        assert (effects.ready, effects.next_fire_at) == ([], 20.0)
        _, effects = await journal.fire(21.0)
        assert [ready.run for ready in effects.ready] == [1]


class TestKeys:
    async def test_one_key_is_one_run_and_other_arguments_are_refused(self, journal):
        ids, effects = await journal.start(new_run(1, key="k"), new_run(2, key="k"))
        assert (ids, len(effects.ready)) == (["run-1", "run-1"], 1)
        with pytest.raises(KeyConflictError):
            await journal.start(new_run(3, key="k", arguments="other"))
        with pytest.raises(KeyConflictError):
            await journal.start(new_run(3, key="k", on_conflict="reject"))
        assert await journal.query("SELECT count(*) FROM durable_runs") == [(1,)]

    async def test_a_chosen_id_is_one_run(self, journal):
        await journal.start(new_run(1, "mine", chosen=True))
        assert (await journal.start(new_run(2, "mine", chosen=True)))[0] == ["mine"]
        with pytest.raises(RunExistsError):
            await journal.start(new_run(3, "mine", chosen=True, arguments="other"))

    async def test_replacing_cancels_the_old_run_and_takes_its_key(self, journal):
        await journal.start(new_run(1, key="k"))
        ids, _ = await journal.start(new_run(2, key="k", on_conflict="replace"))
        assert ids == ["run-2"]
        assert [type(event) for event in await journal.inbox(1)] == [CancelRequested]
        assert (await journal.start(new_run(3, key="k")))[0] == ["run-2"]


class TestCancelling:
    @pytest.mark.parametrize("status", ["pending", "delayed", "running", "waiting", "paused", "blocked"])
    async def test_a_cancel_reaches_a_run_in_every_status(self, journal, status):
        """It is recorded, and either a driver is told of it or the run is offered to one."""
        await journal.start(new_run(1, due_at=99.0 if status == "delayed" else None))
        if status in ("running", "waiting", "blocked"):
            await journal.commit(journal.turn(1, status=status))
        if status == "paused":
            await journal.request(PauseRun("run-1"), now=5.0)
        done, effects = await journal.request(CancelRun("run-1", "no"), now=6.0)
        assert done
        assert await journal.inbox(1) == [CancelRequested("no", 6.0)]
        offered = [ready.run for ready in (*effects.ready, *getattr(effects, "unborn", ()))]
        assert offered == [1] or effects.arrived == {1}
        if status in ("delayed", "waiting", "paused", "blocked"):
            assert offered == [1]

    async def test_a_run_that_has_ended_is_not_cancelled(self, journal):
        await journal.start(new_run(1))
        await journal.commit(journal.end(1))
        done, effects = await journal.request(CancelRun("run-1", "no"), now=6.0)
        assert (done, any(vars(effects).values())) == (False, False)


class Statuses:
    """Brings runs into every status, in each way that there is, and notes how what happens then changes them."""

    def __init__(self, journal):
        self.journal = journal
        self.numbers = itertools.count(1)
        self.seen = {}

    async def note(self, before, run, *causes):
        after = await self.journal.status(run)
        if after != before:
            for cause in causes:
                self.seen.setdefault(before, {}).setdefault(after, set()).add(cause)

    async def started(self, status, **options):
        """A run that turns have brought into *status*."""
        number = next(self.numbers)
        await self.journal.start(evolve(new_run(number), **options))
        await self.note(NEW, number, Cause.CREATION)
        before = "pending"
        for each in ["running", status] if status in ("waiting", "blocked") else [status]:
            await self.turn(number, each, before)
            before = each
        return number

    async def turn(self, run, status, before):
        match status:
            case "pending" | "paused":
                return
            case "succeeded":
                await self.journal.commit(self.journal.end(run))
            case "failed":
                await self.journal.commit(self.journal.failure(run))
            case "cancelled":
                await self.journal.commit(self.journal.last_turn(run, RunCancelled("no", at=10.0), "cancelled"))
            case _:
                blocked = "so it is" if status == "blocked" else None
                await self.journal.commit(self.journal.turn(run, status=status, blocked=blocked))
        await self.note(before, run, Cause.TURN)

    async def every_way_into(self, status):
        """Runs in *status*: with and without a turn before it, and held by the one who holds runs."""
        if status == "paused":
            found = [await self.started(each) for each in ("pending", "running", "waiting")]
            for run in found:
                await self.ask(PauseRun, run, Cause.PAUSE)
            return found
        if status == "blocked":
            unborn = await self.started("pending")
            await self.turn(unborn, "blocked", "pending")
            found = [unborn, await self.started("blocked")]
            for run in found:
                await self.journal.database.write(lambda conn, run=run: wakeups.await_code(conn, run, 10.0))
            return found
        return [await self.started(status)]

    async def ask(self, request, run, cause):
        before = await self.journal.status(run)
        try:
            await self.journal.request(request(f"run-{run}"), now=20.0)
        except RunStateError:
            assert await self.journal.status(run) == before
        await self.note(before, run, cause)

    async def arrival(self, run):
        before, effects = await self.journal.status(run), Effects()
        await self.journal.database.write(
            lambda conn: wakeups.put_item(conn, run, TimerFired("0", 20.0), effects, wakes=True)
        )
        await self.note(before, run, Cause.ARRIVAL)

    async def opening(self, runs):
        before = {run: await self.journal.status(run) for run in runs}
        await self.journal.database.write(lambda conn: wakeups.retry_blocked(conn, 20.0))
        for run in runs:
            await self.note(before[run], run, Cause.OPENING)

    async def imported(self, run):
        """A copy of *run*."""

        def load(conn):
            return load_run_history(conn, "", run_by_id(conn, f"run-{run}"))

        history = await self.journal.database.read(load)
        number = next(self.numbers)
        copy = evolve(history, run=evolve(history.run, run_id=f"run-{number}"), pending=[])
        await self.journal.request(ImportRuns((copy,)), now=20.0)
        await self.note(NEW, number, Cause.IMPORT)


class TestStatuses:
    async def test_the_table_of_transitions_is_what_happens(self, journal):
        """Every status and every cause: what changes stands in the table, and all that stands there happens."""
        statuses = Statuses(journal)
        asks = {Cause.PAUSE: PauseRun, Cause.RESUME: ResumeRun, Cause.CANCEL: CancelRun, Cause.RETRY: RetryRun}
        for status in STATUSES:
            for cause, request in asks.items():
                for run in await statuses.every_way_into(status):
                    await statuses.ask(request, run, cause)
            await statuses.opening(await statuses.every_way_into(status))
            for happens in (statuses.arrival, statuses.imported):
                for run in await statuses.every_way_into(status):
                    await happens(run)
            if status in ("pending", "running", "paused"):  # those that a driver may have in its hands
                for after in ("running", "waiting", "blocked", *ENDS):
                    for run in await statuses.every_way_into(status):
                        await statuses.turn(run, after, status)
        await self.expired(statuses)
        await self.cancelled_unborn(statuses)
        await self.in_line(statuses)
        assert statuses.seen == {
            before: {after: set(causes) for after, causes in row.items()}
            for before, row in RUN_TRANSITIONS.items()
            if row
        }

    async def expired(self, statuses):
        """What had to begin by now ends, though a person has paused it."""
        run = await statuses.started("pending", expires_at=15.0)
        await statuses.ask(PauseRun, run, Cause.PAUSE)
        await statuses.journal.database.write(lambda conn: wakeups.fire_due(conn, 20.0, 10, Effects()))
        await statuses.note("paused", run, Cause.EXPIRY)

    async def cancelled_unborn(self, statuses):
        """What was cancelled before it began can begin after all."""
        run = await statuses.started("pending")
        end = [CancelRequested("no", 10.0), RunCancelled("no", at=10.0)]
        await statuses.journal.commit(statuses.journal.last_turn(run, end[0], "cancelled", then=end[1:]))
        await statuses.ask(RetryRun, run, Cause.RETRY)

    async def in_line(self, statuses):
        """Where the run as a whole needs a slot, it waits for it again when it is to go on."""
        journal = statuses.journal
        await journal.database.write(lambda conn: slots.register(conn, [("one", 1, None, None, "wait")]))
        limited = {"limit": "one", "limit_key": ""}
        run = await statuses.started("failed", **limited)
        other = await statuses.started("running", **limited)
        await statuses.ask(RetryRun, run, Cause.RETRY)
        await statuses.turn(other, "succeeded", "running")
        await statuses.note("pending", run, Cause.ARRIVAL)

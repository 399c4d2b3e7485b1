"""
Group commit: what a group caused, and who hears of it when.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from durable import Engine, Flow, Return, step, workflow
from durable._core.journal.events import StepStarted
from durable._core.run.decision import Decision
from durable._shell.commits.commits import TOLD_AT_ONCE, Commits, Turn, _Group
from durable._shell.rows.rows import DroppedNotes, Effects, ReadyRun
from durable._shell.storage.database import Database
from durable._shell.turns.turn_writer import TurnWriter

pytestmark = pytest.mark.anyio

CONTAINERS = sorted(name for name in Effects.__annotations__ if name != "next_fire_at")


def holding(name: str) -> Effects:
    """Effects that have something for *name*, and nothing else."""
    effects = Effects()
    found = getattr(effects, name)
    if isinstance(found, list):
        found.append(name)
    elif isinstance(found, set):
        found.add(name)
    else:
        found[name] = name
    return effects


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_group_is_plain_that_caused_nothing_but_turns(name):
    """All else is for somebody to act on before anybody goes on."""
    assert Effects().is_plain
    assert holding(name).is_plain is (name == "turns")


def test_a_group_that_set_a_timer_is_not_plain():
    """The scheduler is to hear of it."""
    effects = Effects()
    effects.fires(3.0)
    assert not effects.is_plain


@pytest.mark.parametrize("name", CONTAINERS)
def test_effects_take_in_all_of_others(name):
    """Behind what they hold; and the others stay as they are."""
    effects, others = holding(name), holding(name)
    before = len(getattr(effects, name))
    effects.add(others)
    assert len(getattr(effects, name)) == (before + 1 if isinstance(getattr(effects, name), Sequence) else before)
    assert len(getattr(others, name)) == 1
    empty = Effects()
    empty.add(others)
    assert vars(empty) == vars(others)


def test_effects_take_in_the_earlier_timer():
    """Whichever of the two was first."""
    effects, others = Effects(), Effects()
    effects.fires(3.0)
    others.fires(2.0)
    effects.add(others)
    assert effects.next_fire_at == 2.0
    others.fires(1.0)
    later = Effects()
    later.fires(4.0)
    others.add(later)
    assert others.next_fire_at == 1.0


def test_two_effects_share_nothing():
    """What is of the class until it is asked for is of one instance then."""
    one, other = Effects(), Effects()
    one.arrived.add(1)
    one.ready.append(1)
    assert (other.arrived, other.ready) == (set(), [])
    assert (one.arrived, one.ready) == ({1}, [1])


@pytest.fixture
async def database(tmp_path):
    opened = await Database.open(tmp_path / "app.db", durability="process")
    yield opened
    await opened.aclose()


async def test_the_loop_hears_of_a_commit_before_who_waits_for_it(database):
    """On its own thread, with what was written on disk, and not where nothing was."""
    heard = []

    def hear():
        heard.append(threading.get_ident())

    async def write(fn):
        result = await database.write(fn, hear)
        heard.append(result)

    await write(lambda conn: conn.execute("CREATE TABLE seen (value)").rowcount)
    assert heard == [threading.get_ident(), -1]
    with pytest.raises(ZeroDivisionError):
        await write(lambda _: 1 // 0)
    assert len(heard) == 2


async def test_who_waits_goes_on_whatever_becomes_of_who_hears_first(database):
    """A bug there is the event loop's to tell, and no reason to wait for ever."""
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    assert await database.write(lambda _: 7, lambda: 1 // 0) == 7
    assert [type(error) for error in told] == [ZeroDivisionError]


def group(count: int, *, is_plain: bool = True) -> _Group:
    loop = asyncio.get_running_loop()
    write = SimpleNamespace(state=SimpleNamespace(run=1))
    made = _Group([Turn(write, loop.create_future()) for _ in range(count)], [], [])
    made.is_plain, made.effects = is_plain, Effects()
    return made


@pytest.mark.parametrize("is_plain, looked_on", [(True, False), (True, True), (False, False)])
async def test_only_turns_are_told_early_and_only_where_nobody_looks_on(database, is_plain, looked_on):
    """Not all of them at once; all else is for the task that can fail."""
    acted = []
    commits = Commits(database, acted.append, lambda: looked_on, SimpleNamespace())
    members = group(TOLD_AT_ONCE + 2, is_plain=is_plain)
    commits._tell_early(members)
    early = sum(turn.future.done() for turn in members.turns)
    assert early == (TOLD_AT_ONCE if is_plain and not looked_on else 0)
    assert not acted
    await commits._answer(members)
    assert all(turn.future.result() is True for turn in members.turns)
    assert len(acted) == (not early)
    assert (commits.groups, commits.writes) == (1, TOLD_AT_ONCE + 2)


@pytest.mark.parametrize("what", ["usual", "first", "status", "inbox", "emitted", "notes", "no events"])
def test_only_turns_of_rows_behind_the_first_are_usual(what):
    """Of these the writer looks at nothing but their rows."""
    events = [] if what == "no events" else [StepStarted("1", "double", 1, "a.py:7", "d", 2.0)]
    state = ReadyRun(1, "run", "w", "q", seq=1 if what == "first" else 4, kind="workflow", priority=0, ready_at=0.0)
    services = SimpleNamespace()
    notes = SimpleNamespace(dropped=lambda _: DroppedNotes([], succeeded=[], ended=False, everything=False))
    if what != "notes":
        notes = SimpleNamespace(dropped=lambda _: None)
    writer = TurnWriter(state, notes, services, SimpleNamespace())
    writer.announced = what != "status"
    decision = Decision(events)
    if what == "emitted":
        decision.emitted = [("items", "1", "7")]
    execution = SimpleNamespace(idle=False, ended=False)
    turn = writer.turn(decision, execution, 3 if what == "inbox" else 0, 2.0)
    assert turn.is_usual is (what == "usual")


@step
async def double(n: int) -> int:
    return 2 * n


@workflow
async def several() -> Flow[int]:
    value = 1
    for _ in range(10):
        value = yield double(value)
    yield Return(value)


async def test_a_run_alone_goes_on_as_soon_as_the_loop_hears_of_its_commit(tmp_db, monkeypatch):
    """Two iterations of the loop for a step, of which the commit ends one."""
    early, real = [], Commits._tell_early

    def tell(self, group):
        real(self, group)
        early.append(group.told)

    monkeypatch.setattr(Commits, "_tell_early", tell)
    async with asyncio.timeout(20), Engine(tmp_db, [several]) as engine:
        assert await (await engine.start(several())).result() == 1024
        assert sum(map(bool, early)) >= 9

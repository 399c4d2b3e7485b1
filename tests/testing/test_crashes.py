"""
every_crash and every_glitch: what is sound survives, and each planted bug is found, by name.
"""

import asyncio
import os
import sys

import pytest

from durable import (
    Flow,
    Retry,
    Return,
    Transaction,
    context,
    continue_as,
    cursor,
    emit,
    gather,
    job,
    memo,
    race,
    settle,
    sleep,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable.errors import UsageError
from durable.testing import KINDS, Fault, Ledger, Scenario, every_crash, every_glitch, parametrize_faults
from durable.testing._crash.invariants import STRICT
from durable.testing._crash.sites import Site, point

LEDGER = Ledger()
#: How many of the faults that are drawn are tried: `make soak` tries all of them.
SHARE = 1 if "DURABLE_LONG" in os.environ else 2
TABLES = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)"


@transaction
def note(tx: Transaction, text: str) -> int:
    return tx.execute("INSERT INTO notes (text) VALUES (?)", (text,)).lastrowid or 0


@step(retry=Retry(attempts=4, delay=1.0))
async def send(text: str) -> str:
    await asyncio.sleep(3.0)
    LEDGER.add(f"sent {text}", key=context().idempotency_key)
    return text.upper()


@step(retry=Retry(attempts=4, delay=1.0))
def send_in_a_thread(text: str) -> str:
    LEDGER.add(f"printed {text}", key=context().idempotency_key)
    return text


@job(retry=4)
async def count(number: int) -> int:
    LEDGER.add(f"counted {number}", repeatable=True)
    return number + 1


@workflow
async def everything(name: str) -> Flow[list]:
    first = yield note(name)
    told, *counted = yield gather(send(name), *(count(number) for number in range(3)))
    yield send_in_a_thread(name)
    yield sleep(86_400)
    answer = yield wait_for("answer", str)
    yield note(answer)
    yield Return([first, told, *counted, answer])


SOUND = {
    "tables": TABLES,
    "signals": {"answer": ["yes"]},
    "ledger": LEDGER,
}


def test_what_is_sound_survives_a_crash_at_every_commit():
    """
    Each commit is a site twice, before and after; the same end, each time.
    """
    found = every_crash(everything("Ann"), [everything, count], **SOUND)
    assert found.undisturbed.result == [1, "ANN", 1, 2, 3, "yes"]
    assert found.struck == {"crash": 2 * found.commits}
    assert found.commits >= 10
    assert str(found).startswith("everything: ")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_what_is_sound_survives_a_glitch_at_every_line():
    """
    All kinds, everywhere; and pairs.
    """
    struck = set()
    pairs = 10 // SHARE
    for kinds, most in {("crash", "exception", "cancellation", "cancel"): 80, tuple(KINDS[4:]): 60}.items():
        definitions, sample = [everything, count], most // SHARE
        found = every_glitch(everything("Ann"), definitions, kinds=kinds, sample=sample, pairs=pairs, seed=3, **SOUND)
        assert sum(found.struck.values()) == sample + 2 * pairs
        assert {site.event for site in found.sites} == {"line", "yield", "resume", "return", "point"}
        assert found.pairs == pairs
        struck |= set(found.struck)
    assert struck >= set(KINDS) - {"duplicate"}
    found = every_glitch(everything("Ann"), [everything, count], kinds=["duplicate"], **SOUND)
    assert found.struck == {"duplicate": 2}  # the start and the signal


# --- other commands -------------------------------------------------------------------------------------


@step
async def walk() -> int:
    at = cursor(0)
    while at.value < 3:
        LEDGER.add(f"step {at.value}", repeatable=True)
        await at.advance(at.value + 1)
    return at.value


@step
async def remember() -> str:
    async def draw() -> str:
        LEDGER.add("drawn", repeatable=True)
        return "drawn"

    return await memo("draw", draw)


@workflow
async def others(turn: int) -> Flow[list]:
    walked = yield walk()
    drawn = yield remember()
    first = yield race(sleep(500), send("a"))
    settled = yield settle(count(1))
    if turn < 2:
        yield continue_as(others(turn + 1))
    yield Return([walked, drawn, first.value, settled.value])


@pytest.mark.long
@pytest.mark.timeout(300)
def test_cursors_memos_races_and_runs_that_continue():
    """
    What keeps more than one value, or becomes another run.
    """
    found = every_crash(others(0), [others, count], ledger=LEDGER)
    assert found.undisturbed.result == [3, "drawn", "A", 2]
    assert [name for name in found.undisturbed.runs if "continued" in name and "~" not in name] == [
        "run, continued",
        "run, continued, continued",
    ]
    every_glitch(others(0), [others, count], ledger=LEDGER, sample=40 // SHARE, pairs=10 // SHARE)


@pytest.mark.long
def test_a_job_alone():
    """
    Not only workflows.
    """
    found = every_glitch(count(41), [count], ledger=LEDGER, pairs=10)
    assert found.undisturbed.result == 42


# --- planted bugs ----------------------------------------------------------------------------------------


@step
async def hand_out_cash() -> None:
    LEDGER.add("cash handed out")


@workflow
async def careless() -> Flow[None]:
    yield hand_out_cash()


@workflow
async def chatty() -> Flow[None]:
    LEDGER.add("told from workflow code", repeatable=True)
    yield count(1)


ATTEMPTS = []


@step
async def forgetful() -> str:
    ATTEMPTS.append(1)
    return "first" if len(ATTEMPTS) == 1 else "again"


@workflow
async def remembers_nothing() -> Flow[str]:
    yield Return((yield forgetful()))


LOADED = []


@workflow
async def undetermined() -> Flow[None]:
    LOADED.append(1)
    yield note("once")
    if len(LOADED) % 2:
        yield sleep(1)
    yield note("twice")


DRAWN = []


@workflow
async def moody() -> Flow[None]:
    DRAWN.append(1)
    yield count(len(DRAWN))


@step
async def writes_outside() -> None:
    import sqlite3

    with sqlite3.connect(OUTSIDE[0]) as conn:
        conn.execute("INSERT INTO outside VALUES (1)")
    conn.close()


OUTSIDE = [""]


EMITTED = []


@step
async def emits_what_is_new() -> None:
    for word in "ab":
        if word not in EMITTED:
            emit("words", word)
            EMITTED.append(word)


@workflow
async def half_told() -> Flow[None]:
    yield emits_what_is_new()


@workflow
async def never_ends() -> Flow[None]:
    yield wait_for("what nobody sends", str)


@pytest.mark.parametrize(
    "op, definitions, options, message",
    [
        (careless(), [careless], {}, "effect 'cash handed out' took place 2 times, undisturbed 1 times"),
        (chatty(), [chatty, count], {}, "takes place in workflow code, which every replay runs again"),
        (remembers_nothing(), [remembers_nothing], {"before": ATTEMPTS.clear}, "ended otherwise: expected succeeded"),
        (undetermined(), [undetermined], {"tables": TABLES, "before": LOADED.clear}, "diverged from its journal"),
        (moody(), [moody, count], {"before": DRAWN.clear}, "other arguments than recorded"),
        (never_ends(), [never_ends], {}, "is waiting for ever"),
        (half_told(), [half_told], {"before": EMITTED.clear}, "stream 'words' of run 'run', at 0: expected ['\"a\"'"),
    ],
    ids=lambda value: getattr(getattr(value, "definition", None), "name", None),
)
def test_a_planted_bug_is_found(op, definitions, options, message):
    """
    The message says what differs, and which fault shows it.
    """
    with pytest.raises(AssertionError) as caught:
        every_crash(op, definitions, ledger=LEDGER, **options)
    assert message in str(caught.value)


def test_a_fault_that_does_not_strike_fails():
    """
    Nobody is to believe that something was survived which never happened.
    """
    scenario = Scenario(count(1), [count])
    with pytest.raises(AssertionError, match="did not strike: count reached that site 0 times"):
        scenario.strike(Fault("crash", Site(__file__, 1, "line", "nowhere"), 1))
    with pytest.raises(AssertionError, match="did not strike"):
        scenario.strike(Fault("crash", point("commit:before"), 100))


def test_own_invariants():
    """
    They stand beside ours, and see both outcomes.
    """

    def always_lost(found, expected):
        if found.lost:
            yield f"lost {found.lost} times"

    with pytest.raises(AssertionError, match="lost 1 times"):
        every_crash(count(1), [count], invariants=[*STRICT, always_lost])


def test_a_kind_that_is_none():
    """
    The message has those that are.
    """
    with pytest.raises(UsageError, match="'crush' is not a kind of fault: there are crash, exception"):
        every_glitch(count(1), [count], kinds=["crush"])


def test_within_an_event_loop_it_says_where_it_belongs():
    """
    It brings loops of its own.
    """

    async def wrong():
        every_crash(count(1), [count])

    with pytest.raises(UsageError, match="from a plain `def test_"):
        asyncio.run(wrong())


def test_the_same_seed_draws_the_same_faults():
    """
    So that what a sample found is found again.
    """
    scenario = Scenario(count(1), [count])
    one, same, other = (
        [each.values[0] for each in parametrize_faults(scenario, kinds=KINDS, sample=9, seed=seed).args[1]]
        for seed in (1, 1, 2)
    )
    assert one == same != other
    assert len(one) == 9


COUNTED = Scenario(count(1), [count])


@parametrize_faults(COUNTED, kinds=("crash", "no_commit"))
def test_each_fault_is_a_test(fault):
    """
    As users have it.
    """
    assert COUNTED.strike(fault).result == 2


def test_it_leaves_tracing_as_it_was():
    """
    Whoever measures coverage goes on.
    """
    before = sys.gettrace()
    every_glitch(count(1), [count], sample=5)
    assert sys.gettrace() is before

"""
Callbacks under crashes: an answer that was acknowledged is delivered, once, whoever died on the way.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from durable import Client, Engine, Flow, Return, TokenUsedError, callback, gather, race, settle, sleep, step, workflow
from durable.testing import Ledger, every_crash, every_glitch

sys.path.insert(0, str(Path(__file__).parent))
import answering

from tests import children

LEDGER = Ledger()


@frozen
class Payment:
    id: str
    cents: int = 0


@step
async def ask_bank(token: str) -> None:
    LEDGER.add(f"asked by {token}", repeatable=True)


@step
async def ship(payment: Payment) -> str:
    LEDGER.add(f"shipped for {payment.id}", repeatable=True)
    return f"shipped for {payment.id}"


@workflow
async def order() -> Flow[list[Any]]:
    payment = yield callback("payment", Payment, timeout=3600, heartbeat=600)
    approval = yield callback("approval", bool)
    yield ask_bank(payment.token)
    raced = yield settle(race(approval, sleep(60)))
    refused = yield settle(approval)
    paid, again = yield gather(payment, payment)
    yield Return([type(raced.error).__name__, type(refused.error).__name__, (yield ship(paid)), again.cents])


@workflow
async def silent() -> Flow[list[str]]:
    payment = yield callback("payment", Payment, timeout=3600, heartbeat=600)
    yield ask_bank(payment.token)
    found: list[str] = []
    for handle in (payment, (yield callback(timeout=10))):
        try:
            yield handle
        except TimeoutError as error:
            found.append(type(error).__name__)
    yield Return(found)


ANSWERS: dict[str, list[Any]] = {"approval": [ValueError("no")], "payment": [Payment("p", 7)]}


def test_an_order_survives_a_crash_at_every_commit():
    """
    Answers are given until they are acknowledged; the workflow sees each once, by the token it was asked by.
    """
    survived = every_crash(order(), [order], callbacks=ANSWERS, ledger=LEDGER)
    assert survived.undisturbed.result == ["ValueError", "ValueError", "shipped for p", 7]
    assert survived.struck["crash"] >= 12


def test_a_missed_heartbeat_and_a_deadline_survive_it_too():
    """
    Each is missed once, and stays so.
    """
    survived = every_crash(silent(), [silent], ledger=LEDGER)
    assert survived.undisturbed.result == ["HeartbeatMissedError", "TimeoutError"]


def test_an_order_survives_faults_wherever_they_strike():
    """
    Lost acknowledgements, commits that fail, answers that come twice.
    """
    every_glitch(order(), [order], callbacks=ANSWERS, ledger=LEDGER, sample=12, seed=5)


# --- an owner that dies between its commit and its answer -----------------------------------------------------


@pytest.mark.anyio
@pytest.mark.timeout(60)  # processes that import the library
async def test_an_owner_that_is_killed_before_it_answers_has_answered_once(tmp_path):
    """
    Completing and failing each kill the owner that records it: the next one, or the file, tells.
    """
    path = tmp_path / "app.db"
    async with Engine(path, answering.DEFINITIONS, durability="process") as engine:
        runs = [await engine.start(answering.asking(), id=f"asking-{number}") for number in range(2)]
        tokens = [(await engine.get(run.id).attributes()).get("token") for run in runs]
        while None in tokens:
            tokens = [(await engine.get(run.id).attributes()).get("token") for run in runs]
    owners = [
        children.Popen([sys.executable, answering.__file__, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        for owner in owners:
            assert owner.stdout.readline() == b"waiting\n", owner.stderr.read()
        async with Client(path, durability="process") as client:
            assert await client.complete(tokens[0], 7) is True
            assert await client.fail(tokens[1], KeyError("no")) is True
            assert await client.complete(tokens[0], 7) is False
            with pytest.raises(TokenUsedError):
                await client.complete(tokens[1], 7)
    finally:
        killed = []
        for owner in owners:
            killed.append(owner.poll() == -9)
            owner.kill()
            owner.wait()
            owner.stdout.close()
            owner.stderr.close()
    assert any(killed)
    async with Engine(path, answering.DEFINITIONS, durability="process") as engine:
        assert [await engine.get(run.id).result(5) for run in runs] == ["7", "KeyError('no')"]
        kinds = [event.kind for run in runs for event in await engine.get(run.id).history()]
    assert (kinds.count("CallbackCompleted"), kinds.count("CallbackFailed")) == (1, 1)

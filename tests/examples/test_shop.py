"""
The shop: orders and their runs are one commit, a payment by webhook counts once, what fails is undone; and its demo.
"""

import subprocess
import sys
from pathlib import Path

import anyio
import httpx
import pytest

from durable import RunFailedError, TokenUsedError

FOLDER = Path(__file__).parents[2] / "examples" / "shop"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def store(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import store

    return store


class Bank(httpx.AsyncClient):
    """
    Takes every charge, and tells nobody.
    """

    def __init__(self):
        super().__init__(base_url="http://bank")
        self.asked = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def post(self, url, json):
        self.asked.append((url, json))
        return httpx.Response(202, request=httpx.Request("POST", f"http://bank{url}"))


@pytest.fixture
def bank():
    return Bank()


async def until(holds):
    with anyio.fail_after(20):
        while not holds():
            await anyio.sleep(0.005)


async def test_an_order_and_its_run_are_one_commit_and_a_webhook_counts_once(store, bank, tmp_db):
    """
    The bank's second call says the same, and changes nothing; another answer is refused.
    """
    async with store.make_engine(str(tmp_db), bank) as engine:
        number = await engine.transact(store.create_order("ada", ["tea", "lamp"]))
        await until(lambda: bank.asked)
        token = bank.asked[0][1]["token"]
        assert await engine.complete(token, store.Payment("ch-1", 2_000)) is True
        assert await engine.complete(token, store.Payment("ch-1", 2_000)) is False
        with pytest.raises(TokenUsedError):
            await engine.complete(token, store.Payment("ch-2", 1))
        assert await (await engine.find(f"order-{number}")).result() == "parcel-1 of 2"
        rows = await engine.read(lambda conn: conn.execute("SELECT customer, state FROM orders").fetchall())
    assert rows == [("ada", "shipped")]


async def test_a_bank_that_never_answers_is_waited_for_three_days(store, bank, tmp_db, monkeypatch, durable_clock):
    """
    By a clock that is moved by hand: then what was reserved is given back, and the order has failed.
    """
    made = store.Engine
    monkeypatch.setattr(store, "Engine", lambda *args, **options: made(*args, clock=durable_clock, **options))
    async with store.make_engine(str(tmp_db), bank) as engine:
        number = await engine.transact(store.create_order("ada", ["tea"]))
        run = await engine.find(f"order-{number}")
        await until(lambda: bank.asked)
        await engine.idle()
        assert "callback" in await run.why()
        await durable_clock.advance(3 * 86_400)
        with pytest.raises(RunFailedError):
            await run.result()
        assert (await run.info()).compensated
        rows = await engine.read(lambda conn: conn.execute("SELECT state FROM orders").fetchall())
    assert rows == [("failed",)]
    assert [url for url, _ in bank.asked] == ["/charges"]


def test_the_demo_tells_what_became_of_each_order():
    """
    Over real HTTP: one is shipped, one lacks a piano, one is declined; what failed is undone.
    """
    ended = subprocess.run([sys.executable, FOLDER], capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr
    for each in ("shipped: run", "failed: Bob: Fatal: no piano is left; undone: True",
                 "failed: Cyd: Fatal: the card has not that much; undone: True"):  # fmt: skip
        assert each in ended.stdout

"""
Codecs per definition and per type: hooks of one step, and classes that say themselves how they are recorded.
"""

import sqlite3
from contextlib import closing

import pytest

from durable import (
    Client,
    Flow,
    Return,
    ValueType,
    call,
    cursor,
    gather,
    job,
    memo,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable.errors import DefinitionError, EncodeError, RunFailedError
from durable.testing import run_step

pytestmark = pytest.mark.anyio


class Reversed:
    """
    Stands for encryption: what is on disk is not what was recorded.
    """

    def __init__(self, mark=b"!"):
        self.mark = mark

    def encode(self, data):
        return self.mark + data[::-1]

    def decode(self, data):
        if not data.startswith(self.mark):
            raise ValueError("not mine")
        return data[:0:-1]


SECRET = Reversed()


class Money:
    """
    Neither attrs nor anything else that the codec knows.
    """

    def __init__(self, amount, currency):
        self.amount, self.currency = amount, currency

    def __str__(self):
        return f"{self.amount} {self.currency}"

    @classmethod
    def parse(cls, text):
        amount, currency = text.split()
        return cls(int(amount), currency)


MONEY = ValueType(Money, encode=str, decode=Money.parse)


@step(codec=SECRET)
async def card_number() -> str:
    return "4111-1111"


@step
async def city() -> str:
    return "Paris"


@transaction(codec=SECRET)
def balance(tx) -> str:
    return "a lot of it"


@workflow
async def pays() -> Flow[list]:
    found: list[str] = yield gather(card_number(), city())
    rest: str = yield balance()
    yield wait_for("go")
    yield Return([len(found[0]), found[1], len(rest)])


def on_disk(path):
    with closing(sqlite3.connect(path)) as conn:
        rows = conn.execute("SELECT value FROM durable_events WHERE kind = 11 ORDER BY seq").fetchall()
    return {value if isinstance(value, bytes) else value.encode() for (value,) in rows}


@pytest.mark.parametrize("engines_own", [None, Reversed(b"?")])
async def test_a_step_with_a_codec_of_its_own_is_recorded_by_it(engines, tmp_db, reached, engines_own):
    """
    What it returns is, and what others return is not; replayed from the file it is what it was.
    """
    engine = await engines.file(pays, codec=engines_own)
    run = await engine.start(pays())
    await reached(run, "waiting")
    await engine.aclose()
    others = b'"Paris"' if engines_own is None else engines_own.encode(b'"Paris"')
    assert on_disk(tmp_db) == {SECRET.encode(b'"4111-1111"'), others, SECRET.encode(b'"a lot of it"')}
    engine = await engines.file(pays, codec=engines_own)
    run = engine.get(run.id)
    await run.signal("go")
    assert await run.result(5) == [9, "Paris", 11]


async def test_what_a_person_gives_in_place_of_its_value_is_read_too(engines, tmp_db, reached):
    """
    A fork with another outcome writes it with the engine's hooks, or with none.
    """
    for engines_own in (None, Reversed(b"?")):
        engine = await engines.memory(pays, codec=engines_own)
        run = await engine.start(pays())
        await reached(run, "waiting")
        fork = await run.fork("1", {"1": "yes"})
        await reached(fork, "waiting")
        await fork.signal("go")
        assert await fork.result(5) == [9, "Paris", 3]
        await engine.aclose()


async def test_the_cursor_and_memos_of_a_step_are_recorded_by_its_codec(engines, tmp_db, reached):
    """
    They are parts of what it has come to.
    """
    seen = []

    async def fetched() -> str:
        return "a memo"

    @step(codec=SECRET, retry=2)
    async def scan() -> str:
        at = cursor(start="start")
        if at.value == "start":
            await at.advance("half way")
            await memo("fetched", fetched)
            with closing(sqlite3.connect(tmp_db)) as conn:
                seen.extend(bytes(value) for (value,) in conn.execute("SELECT value FROM durable_notes ORDER BY name"))
            raise ConnectionError("again")
        return f"{at.value}, {await memo('fetched', fetched)}"

    @workflow
    async def scans() -> Flow[str]:
        yield Return((yield scan()))

    engine = await engines.file(scans)
    assert await engine.run(scans()) == "half way, a memo"
    assert seen == [SECRET.encode(b'"half way"'), SECRET.encode(b'"a memo"')]


async def test_a_step_with_a_codec_is_tested_like_any_other():
    """
    `run_step` sends its value through the step's hooks.
    """
    assert (await run_step(card_number())).value == "4111-1111"


@pytest.mark.parametrize("decorate", [step, transaction])
def test_what_is_no_codec_is_refused_where_it_is_written(decorate):
    """
    And not when its value is to be recorded.
    """
    with pytest.raises(DefinitionError, match=r"codec= needs an object with encode\(bytes\) and decode\(bytes\)"):
        decorate(codec=len)


# --- types ----------------------------------------------------------------------------------------


@job
async def add(prices: list[Money], extra: Money | None = None) -> Money:
    found = [*prices, *([extra] if extra is not None else [])]
    return Money(sum(price.amount for price in found), found[0].currency)


@workflow
async def basket(price: Money) -> Flow[dict[str, Money | int]]:
    async def double(price: Money) -> Money:
        return Money(price.amount * 2, price.currency)

    twice: Money = yield call(double, price)
    total: Money = yield add([price, twice], extra=Money(1, "EUR"))
    more: Money = yield wait_for("more", Money)
    yield Return({"total": total, "more": more, "count": 3})


async def test_a_type_of_the_programs_own_is_recorded_as_it_says(engines, tmp_db, reached):
    """
    As an argument, a result, in containers, unions and signals, and by a client; after a restart it is what it was.
    """
    engine = await engines.file(basket, add, types=[MONEY])
    run = await engine.start(basket(Money(5, "EUR")))
    await reached(run, "waiting")
    await engine.aclose()
    with closing(sqlite3.connect(tmp_db)) as conn:
        values = [value for (value,) in conn.execute("SELECT value FROM durable_events WHERE value IS NOT NULL")]
    assert '[["5 EUR"],{}]' in values
    assert '"10 EUR"' in values
    engine = await engines.file(basket, add, types=[MONEY])
    async with Client(tmp_db, types=[MONEY]) as client:
        await client.get(run.id).signal("more", Money(7, "EUR"))
        found = await (await client.start(add([Money(2, "USD")]))).result(5)
        assert str(found) == "2 USD"
    found = await engine.get(run.id).result(5)
    assert {name: str(value) for name, value in found.items()} == {"total": "16 EUR", "more": "7 EUR", "count": "3"}


async def test_a_class_that_nobody_registered_is_refused_as_before(engines):
    """
    Registered with one engine, it is not known to another.
    """
    await engines.memory(basket, add, types=[MONEY])
    engine = await engines.memory(basket, add)
    with pytest.raises(EncodeError, match="Money"):
        await engine.start(basket(Money(5, "EUR")))


@pytest.mark.parametrize(
    "own, reason",
    [
        (
            ValueType(Money, encode=lambda money: money.amount, decode=lambda n: Money(n + 1, "EUR")),
            "an equal instance",
        ),
        (ValueType(Money, encode=lambda money: money.cents, decode=Money.parse), "AttributeError"),
        (ValueType(Money, encode=lambda money: {money}, decode=Money.parse), "Money"),
        (ValueType(Money, encode=str, decode=str), "decode function gave str"),
    ],
)
async def test_what_does_not_come_back_is_refused_when_it_is_recorded(engines, own, reason):
    """
    And not when somebody needs it.
    """
    engine = await engines.memory(basket, add, types=[own])
    with pytest.raises(EncodeError, match=reason):
        await engine.start(basket(Money(5, "EUR")))


class Gift(Money):
    """
    Another class, though it looks like the registered one.
    """


async def test_a_subclass_is_not_taken_for_the_registered_class(engines):
    """
    It would come back as another class.
    """
    engine = await engines.memory(basket, add, types=[MONEY])
    with pytest.raises(EncodeError, match="Gift"):
        await engine.start(basket(Gift(5, "EUR")))

    @step
    async def wraps() -> Money:
        return Gift(5, "EUR")

    @workflow
    async def giving() -> Flow[Money]:
        yield Return((yield wraps()))

    engine = await engines.memory(giving, types=[MONEY])
    with pytest.raises(RunFailedError, match="Gift"):
        await engine.run(giving())


def test_what_is_no_type_is_refused_where_it_is_written():
    """
    A function that is none, a class given twice, a class without a word how.
    """
    with pytest.raises(DefinitionError, match="needs a class"):
        ValueType("Money", str, str)
    with pytest.raises(DefinitionError, match="encode must be a function"):
        ValueType(Money, "str", str)
    with pytest.raises(DefinitionError, match="is given twice"):
        Client("none.db", types=[MONEY, MONEY])
    with pytest.raises(DefinitionError, match=r"types= takes ValueType\(cls, encode, decode\)"):
        Client("none.db", types=[Money])

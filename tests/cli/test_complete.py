"""
`durable complete`: a callback is answered by hand, beside a live engine and on a file that nobody owns.
"""

import anyio.to_thread
import pytest
from attrs import frozen

from durable import CallbackFailedError, Flow, Return, RunFailedError, callback, workflow

pytestmark = pytest.mark.anyio


@frozen
class Payment:
    id: str
    cents: int = 0


TOKENS: list[str] = []


@workflow
async def order() -> Flow[Payment]:
    payment = yield callback("payment", Payment, timeout=3600, heartbeat=600)
    TOKENS.append(payment.token)
    paid: Payment = yield payment
    yield Return(paid)


@pytest.fixture
async def desk(engines, cli, tmp_db, reached):
    """
    A run that waits for a callback: its engine, itself, its token, and the command line beside them.
    """
    TOKENS.clear()
    engine = await engines.file(order)
    run = await engine.start(order(), id="order-1")
    await reached(run, "waiting")

    async def carry_out(*argv):
        return await anyio.to_thread.run_sync(lambda: cli(*argv, "--db", tmp_db))

    return engine, run, TOKENS[0], carry_out


async def test_a_value_completes_it_once(desk):
    """
    The same again does nothing, and says so; another one is wrong usage.
    """
    _, run, token, cli = desk
    said = await cli("complete", token, '{"id": "p-7", "cents": 500}')
    assert (said.code, said.out) == (0, "the callback is completed\n")
    assert await run.result(5) == Payment("p-7", 500)
    again = await cli("complete", token, '{"id": "p-7", "cents": 500}', "--json")
    assert again.values == [{"request": "complete", "outcome": "answered before"}]
    other = await cli("complete", token, '{"id": "p-8"}')
    assert other.code == 2
    assert "it was completed already with something else" in other.err


async def test_a_text_fails_it(desk):
    """
    The workflow gets it as an error of its own.
    """
    _, run, token, cli = desk
    assert (await cli("complete", token, "--fail", "the card was declined")).code == 0
    with pytest.raises(RunFailedError) as caught:
        await run.result(5)
    assert repr(caught.value.__cause__) == repr(CallbackFailedError("the card was declined"))


async def test_a_heartbeat_keeps_it_alive(desk):
    """
    Nothing of it is in the history.
    """
    _, run, token, cli = desk
    before = len(await run.history())
    said = await cli("complete", token, "--heartbeat")
    assert (said.code, said.out) == (0, "the callback is kept alive\n")
    assert len(await run.history()) == before


@pytest.mark.parametrize(
    "argv, code, words",
    [
        (["TOKEN", '"p-7"'], 2, "expected tests.cli.test_complete.Payment"),
        (["TOKEN", "{}", "--heartbeat"], 2, "a value goes with neither --fail nor --heartbeat"),
        (["TOKEN", "--fail", "no", "--heartbeat"], 2, "not allowed with argument"),
        (["TOKEN", "p-7"], 2, "is not JSON"),
        (["cb1_x"], 2, "this is no token of a callback"),
        (["order-1"], 2, "it does not begin with 'cb1_'"),
    ],
)
async def test_what_is_wrong_is_told_and_it_stays_open(desk, argv, code, words):
    """
    Nothing is recorded, and the right answer is accepted after it.
    """
    engine, run, token, cli = desk
    said = await cli("complete", *(token if each == "TOKEN" else each for each in argv))
    assert said.code == code
    assert words in said.err
    assert await engine.complete(token, Payment("p"))
    await run.result(5)


async def test_where_nobody_has_the_file_it_is_recorded_all_the_same(desk, engines):
    """
    The next engine delivers it.
    """
    engine, run, token, cli = desk
    await engine.aclose()
    said = await cli("complete", token, '{"id": "p-7"}')
    assert said.code == 0
    assert "takes effect once one has" in said.err
    engine = await engines.file(order)
    assert await engine.get(run.id).result(5) == Payment("p-7")


async def test_show_lists_callbacks_with_the_tokens_of_those_that_are_open(desk):
    """
    For people with the command to answer it by; once it is answered, without.
    """
    engine, run, token, cli = desk
    shown = await cli("show", "order-1")
    assert f"0  payment (tests.cli.test_complete.Payment)  open, due in 1 h: durable complete {token}" in shown.out
    (told,) = (await cli("show", "order-1", "--json")).values
    assert [each["token"] for each in told["callbacks"]] == [token]
    await engine.fail(token, "no")
    with pytest.raises(RunFailedError):
        await run.result(5)
    (told,) = (await cli("show", "order-1", "--json")).values
    assert [(each["name"], each["status"], each["token"]) for each in told["callbacks"]] == [
        ("payment", "failed", None)
    ]
    assert token not in (await cli("show", "order-1")).out


async def test_a_run_is_found_by_the_callback_that_it_waits_for(desk):
    """
    As by a signal of that name; and drawn with it.
    """
    _, _, _, cli = desk
    assert "order-1" in (await cli("list", "--waiting-for", "payment")).out
    assert "order-1" in (await cli("list", "--waiting-for", "callback")).out
    assert "order-1" not in (await cli("list", "--waiting-for", "signal:payment")).out
    assert "callback" in (await cli("graph", "order-1")).out
    assert "CallbackOpened" in (await cli("history", "order-1")).out

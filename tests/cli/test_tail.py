"""
`durable tail`: what a run emits, beside a live engine and without one.
"""

import anyio.to_thread
import pytest

from durable import Flow, Retry, Return, continue_as, emit, step, wait_for, workflow

pytestmark = pytest.mark.anyio


@step(retry=Retry(attempts=2, delay=0.001))
async def speak(text: str) -> None:
    for word in text.split():
        emit("words", word)
    if not text.startswith("again"):
        emit("numbers", {"of": len(text)})
    if text == "shaky" and not told:
        told.append(text)
        raise ConnectionError


told = []


@workflow
async def speaking() -> Flow[str]:
    yield speak("one two\x1b[31m")
    word: str = yield wait_for("go", str)
    yield speak(word)
    yield Return(word)


@workflow
async def chained(rounds: int) -> Flow[None]:
    emit("words", f"round {rounds}")
    if rounds:
        yield continue_as(chained(rounds - 1))


async def test_items_come_until_the_run_has_ended(engines, cli, tmp_db, reached):
    """
    A text as it is, without what could drive the terminal; other values as JSON; a new attempt is told of.
    """
    told.clear()
    engine = await engines.file(speaking)
    run = await engine.start(speaking(), id="r")
    await reached(run, "waiting")
    assert cli("tail", "r", "words", "--db", tmp_db, "--no-follow").lines == ["one", "two\\x1b[31m"]
    async with anyio.create_task_group() as group:

        async def follow():
            found = await anyio.to_thread.run_sync(cli, "tail", "r", "words", "--db", tmp_db)
            assert (found.code, found.lines) == (
                0, ["one", "two\\x1b[31m", "shaky", "attempt 2 of the step at 2", "shaky"],
            )  # fmt: skip

        group.start_soon(follow)
        await run.signal("go", "shaky")
    numbers = ['{"of": 12}', '{"of": 5}', "attempt 2 of the step at 2", '{"of": 5}']
    assert cli("tail", "r", "numbers", "--db", tmp_db).lines == numbers
    values = cli("tail", "r", "words", "--db", tmp_db, "--json").values
    assert [(each["value"], each["position"], each["attempt"]) for each in values] == [
        ("one", "0", 1), ("two\x1b[31m", "0", 1), ("shaky", "2", 1), ("shaky", "2", 2),
    ]  # fmt: skip
    after = values[1]["seq"]
    assert cli("tail", "r", "words", "--db", tmp_db, "--after", after, "--json").values == values[2:]


async def test_without_a_name_the_streams_are_told(engines, cli, tmp_db, reached):
    """
    In the order in which they began.
    """
    told.clear()
    engine = await engines.file(speaking)
    await reached(await engine.start(speaking(), id="r"), "waiting")
    lines = cli("tail", "r", "--db", tmp_db).lines
    assert [line.split()[:2] for line in lines] == [["STREAM", "ITEMS"], ["words", "2"], ["numbers", "1"]]
    assert [each["stream"] for each in cli("tail", "r", "--db", tmp_db, "--json").values] == ["words", "numbers"]
    assert "streams    words (2), numbers (1)" in cli("show", "r", "--db", tmp_db).out
    assert cli("show", "r", "--db", tmp_db, "--json").values[0]["streams"] == {"words": 2, "numbers": 1}
    assert cli("tail", "r", "nothing", "--db", tmp_db, "--no-follow").lines == []
    assert cli("tail", "gone", "words", "--db", tmp_db).code == 3


async def test_a_run_is_followed_through_what_it_continued_as(engines, cli, tmp_db):
    """
    By the command as by readers in a program.
    """
    engine = await engines.file(chained)
    run = await engine.start(chained(2), id="r")
    await run.result()
    rounds = ["round 2", "round 1", "round 0"]
    assert cli("tail", "r", "words", "--db", tmp_db).lines == rounds
    assert [each async for each in run.stream("words")] == rounds
    assert cli("tail", "r", "--db", tmp_db).lines[1].split()[:2] == ["words", "1"]

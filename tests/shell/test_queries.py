"""
`@ride.query` and `run.query`: what a run has published and done is told from outside, and nothing of it is woken.
"""

from functools import partial

import pytest
from attrs import frozen

from durable import (
    Client,
    DefinitionError,
    Fatal,
    Flow,
    Return,
    RunNotFoundError,
    RunView,
    Service,
    UsageError,
    continue_as,
    job,
    set_attributes,
    step,
    wait_for,
    workflow,
)

pytestmark = pytest.mark.anyio


@frozen
class Stop:
    street: str


CALLS: list[int] = []


@step(retry=2)
async def drive(street: str) -> Stop:
    if street == "nowhere":
        raise Fatal("no such street")
    return Stop(street)


@job
async def bill(amount: int) -> int:
    return amount


@workflow
async def ride(streets: list[str]) -> Flow[int]:
    """Drives from stop to stop, and waits to be told to end."""
    CALLS.append(1)
    for street in streets:
        set_attributes(towards=street)
        try:
            yield drive(street)
        except Fatal:
            continue
    yield bill(7)
    yield wait_for("end")
    yield Return(len(streets))


@ride.query
def stops(run: RunView, prefix: str = "") -> list[Stop]:
    """Where it has been."""
    return [stop for stop in run.values(drive) if stop.street.startswith(prefix)]


@ride.query
def summary(run: RunView) -> list[object]:
    """All that a view tells."""
    steps = [(each.position, each.name, each.status, each.value, each.error) for each in run.steps]
    return [run.status, run.attributes, run.arguments.args, run.value(bill), run.value("drive"), steps]


@workflow
async def other() -> Flow[None]:
    """Has no queries, until it continues as something that has."""
    yield continue_as(ride(["Elm St"]))


SUMMARY = [
    {"towards": "nowhere"},
    (["Main St", "nowhere"],),
    7,
    {"street": "Main St"},
    [
        ("0", "drive", "succeeded", {"street": "Main St"}, None),
        ("1", "drive", "failed", None, "Fatal: no such street"),
        ("2", "bill", "succeeded", 7, None),
    ],
]


async def waits_for_its_end(run):
    return "'end'" in await run.why()


async def test_a_query_reads_what_is_published_and_done_and_wakes_nobody(engines, eventually):
    """
    Values of steps have their types. The run is as it was: not even its code was replayed.
    """
    CALLS.clear()
    engine = await engines.file(ride, bill)
    run = await engine.start(ride(["Main St", "nowhere"]))
    await eventually(partial(waits_for_its_end, run))
    replays, events = len(CALLS), await run.history()
    assert await run.query(stops) == [Stop("Main St")]
    assert await run.query(stops, prefix="X") == []
    assert await run.query("stops", "M") == [Stop("Main St")]
    assert await run.query(summary) == ["waiting", *SUMMARY]
    assert (len(CALLS), await run.history()) == (replays, events)
    await run.signal("end")
    await run.result(5)
    assert await run.query(summary) == ["succeeded", *SUMMARY]


async def test_clients_and_services_ask_as_well(engines, eventually):
    """
    They read the file, whoever executes it. Without definitions the function itself is enough.
    """
    engine = await engines.file(ride, bill)
    run = await engine.start(ride(["Main St", "nowhere"]))
    await eventually(partial(waits_for_its_end, run))
    async with Client(engine.path, durability="process") as client:
        assert await client.get(run.id).query(summary) == await run.query(summary)
        with pytest.raises(UsageError, match=r"no query called 'summary': workflow 'ride' is not known here"):
            await client.get(run.id).query("summary")
    await engine.aclose()
    async with Client(engine.path, durability="process") as client:
        assert (await client.get(run.id).query(summary))[1:] == SUMMARY
    async with Service(engine.path, [ride, bill], durability="process") as app:
        assert await app.get(run.id).query("stops") == [Stop("Main St")]


async def test_a_run_that_continued_answers_as_what_it_continued_as(engines, eventually):
    """
    As it takes signals.
    """
    engine = await engines.memory(other, ride, bill)
    run = await engine.start(other(), id="first")

    async def has_driven():
        return (await run.info()).successor is not None and await run.query(stops) == [Stop("Elm St")]

    await eventually(has_driven)


async def test_what_is_no_query_of_the_run_is_refused(engines):
    """
    By its name, which are those that there are; and so is a run that does not exist.
    """
    engine = await engines.memory(ride, other)
    run = await engine.start(ride([]))
    with pytest.raises(UsageError, match="no query called 'stop': workflow 'ride' has stops, summary"):
        await run.query("stop")
    for wrong in (drive, len, lambda run: run):
        with pytest.raises(UsageError, match=r"query\(\) takes a function registered by @ride\.query"):
            await run.query(wrong)
    with pytest.raises(RunNotFoundError):
        await engine.get("none").query(stops)


def test_a_query_is_a_plain_function_with_a_name_of_its_own():
    """
    Refused where it is defined. It stays what it was: a function.
    """

    async def later(run: RunView) -> None:
        """No plain function."""

    with pytest.raises(DefinitionError, match="is a plain function of a RunView"):
        ride.query(later)
    with pytest.raises(DefinitionError, match="is a plain function of a RunView"):
        ride.query(drive)

    def stops(run: RunView) -> None:
        """Takes a name that is taken."""

    with pytest.raises(DefinitionError, match=r"two queries of .* are called 'stops'"):
        ride.query(stops)

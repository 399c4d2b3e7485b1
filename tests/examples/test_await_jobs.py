"""
A ride waits for its jobs, all of them, once, and through the death of its process.
"""

import asyncio
import signal

import pytest

from durable import Engine, Flow, Return, RunFailedError, gather, job, workflow

#: Dies by SIGKILL when the first job of two has ended and the other has not.
RIDE = """
import asyncio, os, signal, sys
import await_jobs
from durable import Engine

async def main(path, how):
    definitions = [await_jobs.ride, await_jobs.tell_drivers, await_jobs.write_audit]
    async with Engine(path, definitions) as engine:
        if how == "die":
            await engine.queue("audit").pause()
            ride = await engine.start(await_jobs.ride(1), key="ride")
            while "tell_drivers" not in [info.workflow async for info in engine.runs(status="succeeded")]:
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        await engine.queue("audit").resume()
        ride = await engine.find("ride")
        await ride.result()
        print("CHILDREN", [info.workflow for info in await ride.children()])

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def engine(example, tmp_db):
    """
    An engine of its rides.
    """
    names = ("ride", "ride_with_arguments", "ride_with_a_computed_list", "tell_drivers", "write_audit")
    async with Engine(tmp_db, [getattr(example, name) for name in names]) as engine:
        yield engine


async def test_results_are_in_the_order_of_the_list(example, engine, capsys):
    """
    Arguments and keywords reach the jobs, and the charge comes after all of them.
    """
    await engine.run(example.ride_with_arguments(7, "Elm St 2"))
    assert capsys.readouterr().out == (
        "  user 7 is charged, after: ['5 drivers near Elm St 2 were told', 'users (1, 2, 3) noted, from the web']\n"
    )


@pytest.mark.parametrize("user_id, pickups, jobs", [
    (3, ["a", "b", "c"], ["tell_drivers"] * 3),
    (3, [], ["write_audit"]),
    (0, ["a"], []),
])  # fmt: skip
async def test_the_list_is_computed(user_id, pickups, jobs, example, engine, capsys):
    """
    Several jobs, one, or none: then the ride goes on at once.
    """
    children = await example.awaited(engine, example.ride_with_a_computed_list(user_id, pickups))
    assert [info.workflow for info in children] == jobs
    assert f"user {user_id} is charged" in capsys.readouterr().out


async def test_a_job_that_fails_does_not_strand_its_ride(example, engine, capsys):
    """
    The other job ends, the ride fails with its error, and nobody is charged.
    """
    run = await engine.start(example.ride_with_arguments(5, "nowhere"))
    with pytest.raises(RunFailedError) as failed:
        await run.result()
    (error,) = failed.value.__cause__.exceptions
    assert (type(error), str(error)) == (LookupError, "no driver is near")
    assert [info.status for info in await run.children()] == ["failed", "succeeded"]
    assert "charged" not in capsys.readouterr().out


async def test_a_waiting_ride_needs_no_slot(example, tmp_db):
    """
    Ten rides of two jobs each end on one slot.
    """
    definitions = [example.ride, example.tell_drivers, example.write_audit]
    async with Engine(tmp_db, definitions, concurrency=1) as engine:
        runs = await engine.start_many([example.ride(user) for user in range(10)])
        async with asyncio.timeout(30):
            await asyncio.gather(*(run.result() for run in runs))


def test_killed_between_two_jobs(start, tmp_db):
    """
    One job of two has ended when the process dies: it is not run again, and the charge is made once.
    """
    code, said = start(RIDE, tmp_db, "die").ended()
    assert (code, "charged" in said) == (-signal.SIGKILL, False)
    code, said = start(RIDE, tmp_db, "live").ended()
    assert (code, said.count("user 1 is charged")) == (0, 1)
    assert "CHILDREN ['tell_drivers', 'write_audit']" in said
    code, said = start(RIDE, tmp_db, "live").ended()
    assert (code, "charged" in said) == (0, False)


async def test_a_job_retried_later_does_not_rewrite_what_its_ride_was_told(tmp_db):
    """
    A ride has failed with a job's failure; mended and retried, the job succeeds, and the ride stays as it was.

    Retried itself, the ride takes the job's success and goes on.
    """
    drivers = []

    @job
    def find_driver(pickup: str) -> str:
        return f"{drivers[0]} comes to {pickup}"

    @workflow
    async def ride(pickup: str) -> Flow[list[str]]:
        found: list[str] = yield gather(find_driver(pickup))
        yield Return(found)

    async with Engine(tmp_db, [ride, find_driver]) as engine:
        run = await engine.start(ride("Elm St 2"))
        with pytest.raises(RunFailedError):
            await run.result()
        (failed,) = await run.children()
        before = await run.history()
        drivers.append("Dan")
        await engine.get(failed.run_id).retry()
        assert await engine.get(failed.run_id).result(5) == "Dan comes to Elm St 2"
        assert (await run.status(), await run.history()) == ("failed", before)
        await run.retry()
        assert await run.result(5) == ["Dan comes to Elm St 2"]
        assert len(await run.children()) == 1

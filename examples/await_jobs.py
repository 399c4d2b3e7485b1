"""
Steps that await jobs: a list written down, jobs with arguments, and a list computed in code.

Each job is a run of its own, on its own queue; they run in parallel, and the charge comes once all of
them have succeeded. Until then the ride occupies no slot and no memory. A job that fails permanently does
not strand its ride: the ride is told, and fails, or does what its `except` says.
"""

import asyncio
import logging
import tempfile
from pathlib import Path

import structlog

from durable import Engine, Flow, Op, Queue, RunFailedError, RunInfo, RunOp, gather, job, step, workflow


@job(queue="drivers")
async def tell_drivers(pickup: str = "Main St 1", *, radius: int = 3) -> str:
    await asyncio.sleep(0.1)
    if pickup == "nowhere":
        raise LookupError("no driver is near")
    return f"{radius} drivers near {pickup} were told"


@job(queue="audit")
async def write_audit(*user_ids: int, source: str = "app") -> str:
    await asyncio.sleep(0.1)
    return f"users {user_ids} noted, from the {source}"


@step
async def charge(user_id: int, after: list[str] | None) -> None:
    print(f"  user {user_id} is charged, after: {after}")


@workflow
async def ride(user_id: int) -> Flow[None]:
    done: list[str] = yield gather(tell_drivers(), write_audit())
    yield charge(user_id, done)


@workflow
async def ride_with_arguments(user_id: int, pickup: str) -> Flow[None]:
    done: list[str] = yield gather(
        tell_drivers(pickup, radius=5),
        write_audit(1, 2, 3, source="web"),
    )
    yield charge(user_id, done)


@workflow
async def ride_with_a_computed_list(user_id: int, pickups: list[str]) -> Flow[None]:
    done: list[str] = yield gather(dynamic_awaits(user_id, pickups))
    yield charge(user_id, done)


def dynamic_awaits(user_id: int, pickups: list[str]) -> list[Op[str]] | None:
    if user_id == 0:
        return None  # nothing to wait for: the ride continues at once
    if pickups:
        return [tell_drivers(pickup, radius=1) for pickup in pickups]
    return [write_audit(user_id)]


async def awaited(engine: Engine, op: RunOp[None]) -> list[RunInfo]:
    """The jobs that a ride awaited, once it has ended."""
    run = await engine.start(op)
    await run.result()
    return await run.children()


def in_parallel(*jobs: RunInfo) -> bool:
    """Whether the last had begun when the first ended."""
    return max(info.started_at or 0 for info in jobs) < min(info.ended_at or 0 for info in jobs)


async def main(path: Path) -> None:
    async with Engine(
        path,
        [ride, ride_with_arguments, ride_with_a_computed_list, tell_drivers, write_audit],
        queues=[Queue("drivers", concurrency=2)],
    ) as engine:
        drivers, audit = await awaited(engine, ride(1))
        assert (drivers.queue, audit.queue) == ("drivers", "audit")
        assert in_parallel(drivers, audit)

        await awaited(engine, ride_with_arguments(2, "Elm St 2"))

        assert len(await awaited(engine, ride_with_a_computed_list(3, ["Elm St 2", "Oak St 3"]))) == 2
        assert len(await awaited(engine, ride_with_a_computed_list(4, []))) == 1
        assert len(await awaited(engine, ride_with_a_computed_list(0, []))) == 0

        failures: BaseException | None = None
        try:
            await engine.run(ride_with_arguments(5, "nowhere"))
        except RunFailedError as error:
            failures = error.__cause__
        assert isinstance(failures, ExceptionGroup)  # of all jobs that failed
        print(f"  user 5 is not charged: {failures.exceptions}")


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "rides.db")))

"""
Worker Versioning: a run stays with the version of the code that it began with.
"""

import asyncio
import contextlib

from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError

from durable import job, step, wait_for, workflow
from durable.temporal import TemporalEngine


@step
async def first() -> str:
    return "first"


@step
async def second() -> str:
    return "second"


@job
async def member() -> None:
    pass


def made(version):
    """
    The code of a version: its steps differ, before the wait and after it.
    """

    async def deployed() -> list[str]:
        before = await (first() if version == 1 else second())
        await wait_for("go")
        return [before, await (first() if version == 1 else second())]

    return workflow(deployed)


async def become_current(client, name, build):
    """
    New runs go to this version from now on.
    """
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=name, build_id=build, ignore_missing_task_queues=True
    )
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(RPCError):  # no worker of it has polled yet
                await client.workflow_service.set_worker_deployment_current_version(request)
                return
            await asyncio.sleep(0.1)


async def test_a_run_stays_with_the_version_that_it_began_with(client, queue):
    """
    Runs that begin later have the later code; what a batch starts, too.
    """

    code = {version: made(version) for version in (1, 2)}

    def engine(version):
        deployment = WorkerDeploymentVersion(queue, str(version))
        return TemporalEngine(client, queue, [code[version], member], deployment=deployment)

    async with engine(1) as one:
        await become_current(client, queue, "1")
        old = await one.start(code[1]())
        async with asyncio.timeout(20):
            while "go" not in await old.why():
                await asyncio.sleep(0.05)
        async with engine(2) as two:
            await become_current(client, queue, "2")
            new = await two.start(code[2]())
            await old.signal("go")
            await new.signal("go")
            assert await old.result(timeout=30) == ["first", "first"]
            assert await new.result(timeout=30) == ["second", "second"]
            async with two.batch() as batch:
                batch.add(member())
            assert (await batch.wait(timeout=30)).succeeded == 1

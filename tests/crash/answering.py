"""
An owner that dies of the first request that it records, between its commit and its answer; and where it would tell
that a request into a run is answered. Run as a program.
"""

import asyncio
import os
import signal
import sys

from durable import Engine, Flow, Request, Return, Schedule, callback, job, set_attributes, wait_for, workflow
from durable._shell.requests.once import Once
from durable._shell.requests.wire import WaitForAnswer
from durable._shell.tasks import server


@job
async def quick(number: int) -> int:
    return number


@workflow
async def waiting() -> Flow[str]:
    value: str = yield wait_for("go")
    yield Return(value)


approve = Request("approve", int, str)


@workflow
async def asked() -> Flow[int]:
    request = yield wait_for(approve)
    yield request.reply(f"{request.value} is fine")
    yield Return(request.value)


@workflow
async def asking() -> Flow[str]:
    handle = yield callback("asked", int, heartbeat=3600)
    set_attributes(token=handle.token)
    try:
        yield Return(repr((yield handle)))
    except KeyError as error:
        yield Return(repr(error))


DEFINITIONS = (quick, waiting, asked, asking)
HOURLY = Schedule("hourly", quick(1), every=3_600)


def die_of_requests():
    """
    Kill this process where it would answer what it has recorded; what was recorded before is answered.
    """
    doomed, record, encode_answer = set(), Once.record, server.encode_answer

    def noted(self, conn, effects, env):
        known = conn.execute("SELECT 1 FROM durable_requests WHERE id = ?", (self.id,)).fetchone()
        result = record(self, conn, effects, env)
        if known is None:
            doomed.add(self.id)
        return result

    def dying(asked, result):
        if (isinstance(asked, Once) and asked.id in doomed) or isinstance(asked, WaitForAnswer):
            os.kill(os.getpid(), signal.SIGKILL)
        return encode_answer(asked, result)

    Once.record = noted
    server.encode_answer = dying


async def main():
    die_of_requests()
    engine = Engine(sys.argv[1], DEFINITIONS, durability="process", schedules=[HOURLY], standby=True)
    print("waiting", flush=True)
    async with engine:
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

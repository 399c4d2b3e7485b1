"""
A program that is traced: its spans go to a file, one a line. Killed by its test, and started again.
"""

import asyncio
import json
import os
import signal
import sys

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from durable import Engine, Flow, Return, job, sleep, step, workflow
from durable.telemetry import instrumented


class Lines(SpanExporter):
    def __init__(self, path):
        self.path = path

    def export(self, spans):
        with open(self.path, "a") as file:
            for span in spans:
                told = {
                    "name": span.name, "kind": span.kind.name, "trace": f"{span.context.trace_id:032x}",
                    "span": f"{span.context.span_id:016x}",
                    "parent": None if span.parent is None else f"{span.parent.span_id:016x}",
                    "attributes": dict(span.attributes), "start": span.start_time, "end": span.end_time,
                    "status": span.status.status_code.name, "pid": os.getpid(),
                }  # fmt: skip
                file.write(json.dumps(told) + "\n")
        return SpanExportResult.SUCCESS


@step
async def charge(cents: int) -> str:
    return f"ch-{cents}"


@job
async def tell(who: str) -> None:
    pass


@step
async def die_once(marker: str) -> None:
    if not os.path.exists(marker):
        with open(marker, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)


@workflow
async def ride(marker: str) -> Flow[str]:
    receipt: str = yield charge(7)
    yield sleep(0.05)
    yield die_once(marker)
    yield tell("Mia")
    yield Return(receipt)


async def main(folder):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Lines(f"{folder}/spans.jsonl")))
    async with Engine(f"{folder}/app.db", [ride, tell], **instrumented(tracer_provider=provider)) as engine:
        run = await engine.start(ride(f"{folder}/died"), id="traced", key="traced")
        await run.result()
        await engine.idle()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

"""
Context variables and spans: what the starter's context holds is known where steps run.
"""

import asyncio
import re
from contextvars import ContextVar
from pathlib import Path

import httpx
import pytest

from durable import Fatal, RunFailedError, gather, job, step, workflow
from durable.temporal import TemporalEngine
from tests.temporal.dev_server import free_port

GUIDE = Path(__file__).parents[2] / "examples" / "guide" / "temporal.md"
tenant: ContextVar[str] = ContextVar("tenant")


@step
async def whose() -> str:
    return tenant.get("nobody's")


@step
def whose_in_thread() -> str:
    return tenant.get("nobody's")


@job
async def whose_job() -> str:
    return tenant.get("nobody's")


@workflow
async def asks() -> list[str]:
    return [*await gather(whose(), whose_in_thread(), whose_job())]


@step
async def breaks() -> None:
    raise Fatal("broken")


@workflow
async def broken() -> None:
    await breaks()


@pytest.mark.parametrize("light", [False, True], ids=["runs", "light jobs"])
async def test_the_context_of_the_starter_travels(client, queue, light):
    """
    To steps in tasks and threads, and to jobs.
    """
    async with TemporalEngine(client, queue, [asks, whose_job], carry=[tenant], light_jobs=light) as engine:
        tenant.set("ada")
        run = await engine.start(asks())
        tenant.set("bob")
        assert await run.result() == ["ada"] * 3


async def test_spans_of_steps_join_the_trace_of_the_start(client, queue):
    """
    By the same options as with a file.
    """
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="the SDK of OpenTelemetry is not installed")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from durable.telemetry import instrumented

    exporter, provider = InMemorySpanExporter(), trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    options = instrumented(tracer_provider=provider)
    async with TemporalEngine(client, queue, [asks, whose_job], **options) as engine:
        with provider.get_tracer("app").start_as_current_span("request") as request:
            await engine.run(asks())
    spans = exporter.get_finished_spans()
    named = {span.name: span for span in spans}
    assert {"step whose", "step whose_in_thread", "step whose_job", "start"} <= {*named}
    assert {span.context.trace_id for span in spans} == {request.get_span_context().trace_id}
    assert named["step whose"].parent.span_id == named["start"].context.span_id


async def test_the_recipe_of_the_guide_gives_prometheus_the_numbers_of_the_sdk_and_ours(address, queue):
    """
    From one address: as it stands in the chapter, and is run here.
    """
    (recipe,) = (
        block for block in re.findall(r"```py\n(.*?)```", GUIDE.read_text(), re.DOTALL) if "Prometheus" in block
    )
    names = {}
    exec(compile(recipe, str(GUIDE), "exec"), names)
    listen = f"127.0.0.1:{free_port()}"
    client, counted = await names["connected"](address, listen)
    async with TemporalEngine(client, queue, [asks, whose_job, broken], middleware=[counted]) as engine:
        await engine.run(asks())
        with pytest.raises(RunFailedError):
            await engine.run(broken())
        async with httpx.AsyncClient(trust_env=False) as scraper, asyncio.timeout(20):
            while 'outcome="failed"' not in (text := (await scraper.get(f"http://{listen}/metrics")).text):
                await asyncio.sleep(0.05)
    counts = re.findall(r"^durable_attempts\{(.*)\} (\d+)$", text, re.MULTILINE)
    told = {(re.search('step="(.*?)"', labels)[1], re.search('outcome="(.*?)"', labels)[1]): n for labels, n in counts}
    assert told[("whose", "succeeded")] == "1"
    assert told[("breaks", "failed")] == "1"
    assert f'task_queue="{queue}"' in text
    assert "temporal_activity_execution_latency" in text

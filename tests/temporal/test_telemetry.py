"""
Context variables and spans: what the starter's context holds is known where steps run.
"""

from contextvars import ContextVar

import pytest

from durable import gather, job, step, workflow
from durable.temporal import TemporalEngine

trace = pytest.importorskip("opentelemetry.sdk.trace", reason="the SDK of OpenTelemetry is not installed")

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

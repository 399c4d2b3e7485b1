"""
Traces by OpenTelemetry, with its SDK: one trace for a run, over a SIGKILL; each span once; and what the docs list.
"""

import asyncio
import contextlib
import inspect
import json
import os
import re
import sys
from contextvars import ContextVar
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import get_current_span

from durable import (
    Client,
    Engine,
    Flow,
    Queue,
    Retry,
    Return,
    RunFailedError,
    Transaction,
    UsageError,
    job,
    sleep,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable import telemetry as module
from durable.telemetry import instrumented, observed
from tests import children

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
APP = Path(__file__).parent / "traced_app.py"
calls = []


@step(retry=Retry(attempts=2, delay=0.01))
async def flaky() -> str:
    calls.append(get_current_span().get_span_context().span_id)
    if len(calls) == 1:
        raise ValueError("once")
    return "fine"


@job
async def broken() -> None:
    raise RuntimeError("no")


@workflow
async def flow() -> Flow[str]:
    value: str = yield flaky()
    yield sleep(0.01)
    yield Return(value)


@workflow
async def waiting() -> Flow[None]:
    yield wait_for("never")


class Kept:
    """
    What was emitted, in this process.
    """

    def __init__(self):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers, self.meters = TracerProvider(), MeterProvider([self.reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.options = instrumented(tracer_provider=self.tracers, meter_provider=self.meters)

    def spans(self, name=""):
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(name)]

    def metrics(self):
        found = {}
        for resource in self.reader.get_metrics_data().resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        key = (metric.name, *sorted(point.attributes.values()))
                        found[key] = getattr(point, "value", None) or getattr(point, "count", 0)
        return found


@pytest.fixture
def kept():
    calls.clear()
    found = Kept()
    yield found
    found.tracers.shutdown()
    found.meters.shutdown()


async def test_a_run_is_one_trace(kept, tmp_db):
    """
    The starter's span, `start` below it, and below that each attempt, and the run; a function sees its own span.
    """
    async with Engine(tmp_db, [flow], **kept.options) as engine:
        with kept.tracers.get_tracer("app").start_as_current_span("request") as request:
            run = await engine.start(flow(), id="one")
        assert await run.result() == "fine"
        await engine.idle()
    (start,) = kept.spans("start")
    assert start.parent.span_id == request.get_span_context().span_id
    steps, (ended,) = kept.spans("step"), kept.spans("run")
    assert [(span.name, span.attributes["durable.attempt"]) for span in steps] == [("step flaky", 1), ("step flaky", 2)]
    assert [span.context.span_id for span in steps] == calls
    assert {span.parent.span_id for span in [*steps, ended]} == {start.context.span_id}
    assert {span.context.trace_id for span in [*steps, ended, start]} == {request.get_span_context().trace_id}
    assert [span.status.status_code.name for span in steps] == ["ERROR", "UNSET"]
    assert ended.name == "run flow"
    assert dict(ended.attributes) == {
        "durable.run.id": "one", "durable.workflow.name": "flow", "durable.run.status": "succeeded",
    }  # fmt: skip
    assert abs(ended.start_time - start.end_time) < 1e9
    assert ended.end_time >= steps[-1].end_time


async def test_failed_and_cancelled_runs_have_their_span(kept, tmp_db):
    """
    With the status and what went wrong; one for each run, whatever became of it.
    """
    async with Engine(tmp_db, [broken, waiting], **kept.options) as engine:
        with pytest.raises(RunFailedError):
            await engine.run(broken())
        run = await engine.start(waiting())
        while await run.status() != "waiting":
            await asyncio.sleep(0.01)
        await run.cancel("enough")
        await engine.idle()
    failed, cancelled = kept.spans("run")
    assert (failed.name, failed.attributes["durable.run.status"]) == ("run broken", "failed")
    assert failed.events[0].attributes["exception.type"] == "RuntimeError"
    assert (cancelled.attributes["durable.run.status"], cancelled.status.description) == ("cancelled", "enough")


@transaction
def pay(tx: Transaction, cents: int) -> int:
    if cents < 0:
        raise ValueError("no money")
    return cents


@workflow
async def paid() -> Flow[str]:
    word: str = yield wait_for("word", str)
    yield pay(7)
    with contextlib.suppress(ValueError):
        yield pay(-7)
    yield Return(word)


async def test_transactions_and_signals_are_of_the_runs_trace(kept, tmp_db):
    """
    One span each, when they are on disk: of a transaction that failed, too; and none by a replay.
    """
    async with Engine(tmp_db, [paid], keep_resident=0, **kept.options) as engine:
        run = await engine.start(paid(), id="p")
        await run.signal("word", "go")
        assert await run.result() == "go"
        await engine.idle()
    (start,) = kept.spans("start")
    (signal,), (good, bad) = kept.spans("signal"), kept.spans("transaction")
    assert {span.parent.span_id for span in (signal, good, bad)} == {start.context.span_id}
    assert (signal.name, signal.attributes["durable.signal.name"]) == ("signal word", "word")
    assert (good.name, good.attributes["durable.position"], good.attributes["durable.attempt"]) == (
        "transaction pay", "1", 1,
    )  # fmt: skip
    assert good.end_time > good.start_time
    assert (good.status.is_ok, bad.status.is_ok) == (True, False)
    assert kept.spans("step") == []


async def test_commits_and_the_loop_are_measured(kept, tmp_db):
    """
    Each commit, with its size; and how late the loop is, while runs are active.
    """
    async with Engine(tmp_db, [flow, waiting], **kept.options) as engine:
        await engine.run(flow())
        await engine.idle()
        commits = (await engine.stats()).commits
        found = kept.metrics()
        assert 0 < found["durable.commit.duration",] == found["durable.commit.size",] <= commits
        assert (await engine.stats()).commit_seconds > 0
    tracing = kept.options["middleware"][0]
    tracing._measure_again(asyncio.get_running_loop(), asyncio.get_running_loop().time() - 1)
    assert kept.metrics()["durable.loop.lag",] == 1


async def test_metrics_count_what_happened(kept, tmp_db):
    """
    Runs begun and ended, attempts and their outcomes.
    """
    async with Engine(tmp_db, [flow], **kept.options) as engine:
        await engine.run(flow())
        await engine.idle()
    found = kept.metrics()
    assert found["durable.runs.started", "flow"] == 1
    assert found["durable.runs.ended", "flow", "succeeded"] == 1
    assert found["durable.attempts.failed", "flaky", "flow"] == 1
    assert found["durable.step.duration", "failed", "flaky", "flow"] == 1
    assert found["durable.step.duration", "flaky", "flow", "succeeded"] == 1


async def test_a_client_starts_the_trace_of_a_run_that_another_process_executes(kept, tmp_db):
    """
    Whoever starts a run has its `start`; the steps are below it.
    """
    async with (
        Engine(tmp_db, [flow], **kept.options) as engine,
        Client(tmp_db, carry=kept.options["carry"]) as client,
    ):
        with kept.tracers.get_tracer("app").start_as_current_span("request") as request:
            run = await client.start(flow())
        await run.result()
        await engine.idle()
    assert {span.context.trace_id for span in kept.spans("step")} == {request.get_span_context().trace_id}


async def test_it_stands_beside_other_variables_and_without_a_tracer_costs_nothing(tmp_db):
    """
    With the API alone no span is valid, and nothing is recorded with the run; other variables are.
    """
    name = ContextVar("name")
    options = instrumented()
    name.set("Mia")
    async with Engine(tmp_db, [flow], middleware=options["middleware"], carry=[name, *options["carry"]]) as engine:
        run = await engine.start(flow())
        await run.result()
        started = (await run.history())[0].event
    assert "Mia" in started.carried
    assert "traceparent" not in started.carried


def test_a_trace_goes_on_in_the_process_after_the_one_that_was_killed(tmp_path):
    """
    Two processes, one trace, right parents: no step that had ended has a second span, and the run has one.
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))}
    for code in (-9, 0):
        command = [sys.executable, APP, tmp_path]
        ended = children.run(command, env=env, capture_output=True, text=True, timeout=50, check=False)
        assert ended.returncode == code, ended.stderr
    spans = [json.loads(line) for line in (tmp_path / "spans.jsonl").read_text().splitlines()]
    start = next(span for span in spans if span["name"] == "start")
    below = [span for span in spans if span["parent"] == start["span"]]
    named = sorted((span["name"], span["attributes"]["durable.run.id"]) for span in below)
    assert named == [
        ("run ride", "traced"), ("run tell", "traced~.3"), ("step charge", "traced"), ("step die_once", "traced"),
        ("step tell", "traced~.3"),
    ]  # fmt: skip
    assert {span["trace"] for span in below} == {start["trace"]}
    pids = {span["name"]: span["pid"] for span in below}
    assert pids["step charge"] != pids["run ride"]
    (ended,) = [span for span in below if span["name"] == "run ride"]
    assert start["start"] - 1e7 <= ended["start"] <= min(span["start"] for span in below if span is not ended)


async def test_a_journal_is_observed_when_the_sdk_collects(kept, tmp_db):
    """
    Runs by status, the paused queue with what waits in it, what freed runs wait for, the file.
    """
    async with Engine(tmp_db, [flow, waiting, broken], queues=[Queue("default")]) as engine:
        with pytest.raises(RunFailedError):
            await engine.run(broken())
        await engine.start(waiting())
        await engine.idle()
        await engine.queue("default").pause()
        await engine.start(flow())
        observed(engine, meter_provider=kept.meters)
        found = await asyncio.to_thread(kept.metrics)
    assert found["durable.runs", "broken", "failed"] == 1
    assert found["durable.runs", "waiting", "waiting"] == 1
    assert found["durable.queue.waiting", "default"] == 1
    assert found["durable.queue.oldest_wait", "default"] >= 0
    assert found["durable.waits", "signal"] == 1
    assert found["durable.file.size",] > 0


def test_a_journal_that_cannot_be_read_gives_no_numbers(kept, tmp_path):
    """
    And harms nobody; one in memory is refused at once.
    """
    observed(tmp_path / "none.db", meter_provider=kept.meters)
    kept.meters.get_meter("host").create_counter("seen").add(1)
    assert kept.metrics() == {("seen",): 1}
    with pytest.raises(UsageError, match="memory"):
        observed(":memory:")


def test_the_table_of_the_docs_is_what_is_emitted():
    """
    Each attribute of the table is a constant of the module, and each constant stands in the table.
    """
    text = inspect.getdoc(module)
    listed = set(re.findall(r"^    (durable\.[a-z._]+) +\S", text, re.MULTILINE))
    source = inspect.getsource(module).partition('"""')[2].partition('"""')[2]
    assert listed == set(re.findall(r'"(durable\.[a-z._]+)"', source))

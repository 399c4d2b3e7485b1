"""
Traces and metrics by OpenTelemetry: one trace for a run, over every restart and in every process.

    from durable.telemetry import instrumented

    engine = Engine("rides.db", [ride], **instrumented())

It needs the extra `otel`, which is the API alone: the application brings the SDK, and says where its spans go.

Spans, each emitted once, and none by a replay:

    span            kind      parent                      begins, ends
    start           producer  the starter's current span  when a run is asked for
    step NAME       internal  the run's `start`           with an attempt of a step or job, and with its outcome
    transaction NAME  internal  the run's `start`         with the commit that has its rows and its outcome
    signal NAME     consumer  the run's `start`           when the run has taken it in
    run NAME        consumer  the run's `start`           when it was asked for; when its end is on disk

The `traceparent` of `start` is recorded with the run, so whichever process executes a step, however much later, gives
it that parent. Children, follow-ups and staged runs are of the same trace. While the function of a step runs, its span
is the current one: spans of its own, and log records, are below it. A transaction runs inside the commit, on another
thread: spans that its function opens are not below its span.

Attributes:
    attribute              of               value
    durable.run.id         all but start    id of the run
    durable.workflow.name  all but start    name of the workflow or job
    durable.run.status     run              succeeded, failed or cancelled
    durable.step.name      step, transaction  name of the step, transaction or job
    durable.position       step, transaction  where the run asked for it
    durable.attempt        step, transaction  from 1
    durable.signal.name    signal           name of the signal
    durable.queue.name     gauges           name of the queue
    durable.limit.name     gauges           name of the limit
    durable.wait.kind      gauges           signal, timer, child, ...

Metrics:

    instrument              unit     attributes
    durable.runs.started    {run}    durable.workflow.name
    durable.runs.ended      {run}    durable.workflow.name, durable.run.status
    durable.step.duration   s        durable.workflow.name, durable.step.name, outcome
    durable.attempts.failed {try}    durable.workflow.name, durable.step.name
    durable.commit.duration s
    durable.commit.size     {write}  how many turns and requests one commit held
    durable.loop.lag        s        how late the event loop is, twice a second while runs are active

`observed(engine)` adds what stands in the journal, read from the file when the SDK collects, at most once a second:

    instrument                 unit    attributes
    durable.runs               {run}   durable.workflow.name, durable.run.status
    durable.queue.waiting      {run}   durable.queue.name
    durable.queue.running      {run}   durable.queue.name
    durable.queue.oldest_wait  s       durable.queue.name
    durable.limit.inside       {slot}  durable.limit.name
    durable.limit.waiting      {slot}  durable.limit.name
    durable.waits              {wait}  durable.wait.kind
    durable.inbox              {item}
    durable.file.size          By

A process that dies between the commit of an end and its span does not emit that span later.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, TypedDict

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as _error:
    _msg = "durable.telemetry needs the OpenTelemetry API: pip install 'durable-asyncio[otel]'"
    raise ImportError(_msg) from _error

from durable._cli.journals.files import open_readonly
from durable._core.release import RELEASE
from durable._shell.attempts.middleware import (
    Activation,
    AttemptFailed,
    Middleware,
    RunCancellation,
    RunFailure,
    RunSuccess,
    StepCall,
)
from durable._shell.handles.journal import JournalHandle
from durable._shell.reports.measures import MEASURES, Measure, measures
from durable._shell.rows.carried import Carried
from durable._shell.rows.engine_events import EngineEvent
from durable._shell.storage.memory import MEMORY
from durable.errors import DurableError, UsageError

__all__ = ["Instruments", "Tracing", "instrumented", "observed"]

RUN_ID: Final = "durable.run.id"
WORKFLOW: Final = "durable.workflow.name"
STATUS: Final = "durable.run.status"
STEP: Final = "durable.step.name"
POSITION: Final = "durable.position"
ATTEMPT: Final = "durable.attempt"
SIGNAL: Final = "durable.signal.name"

#: What is observed: the instrument, its unit, the number of `measures` that it is, and what its labels are called.
_OBSERVED: Final = (
    ("durable.runs", "{run}", "durable_runs", (WORKFLOW, STATUS)),
    ("durable.queue.waiting", "{run}", "durable_queue_waiting", ("durable.queue.name",)),
    ("durable.queue.running", "{run}", "durable_queue_running", ("durable.queue.name",)),
    ("durable.queue.oldest_wait", "s", "durable_queue_oldest_wait_seconds", ("durable.queue.name",)),
    ("durable.limit.inside", "{slot}", "durable_limit_inside", ("durable.limit.name",)),
    ("durable.limit.waiting", "{slot}", "durable_limit_waiting", ("durable.limit.name",)),
    ("durable.waits", "{wait}", "durable_waits", ("durable.wait.kind",)),
    ("durable.inbox", "{item}", "durable_inbox", ()),
    ("durable.file.size", "By", "durable_file_bytes", ()),
)
#: How a transaction has ended, or one attempt of it.
_TRANSACTION_FAILED: Final = ("step.failed", "step.retrying")
_TRANSACTION_ENDED: Final = ("step.succeeded", *_TRANSACTION_FAILED)
#: Seconds between two looks at how late the loop is.
_LAG_EVERY: Final = 0.5
#: Seconds for which a reading of the file is good: instruments are asked one by one.
_FRESH: Final = 1.0

#: What is recorded with a run, and under which name.
_CARRIED_AS: Final = "traceparent"
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Instruments(TypedDict):
    """Options for `Engine` or `Service`."""

    middleware: list[Middleware]
    carry: list[Carried]


def instrumented(
    *, tracer_provider: trace.TracerProvider | None = None, meter_provider: metrics.MeterProvider | None = None
) -> Instruments:
    """
    Options that have an engine emit spans and metrics: ``Engine(path, definitions, **instrumented())``.

    Where there is other middleware or other variables to carry, put the two lists together:
    ``middleware=[Mine(), *found["middleware"]], carry=[request_id, *found["carry"]]``.

    Args:
        tracer_provider: By default the application's global one.
        meter_provider: Likewise.
    """
    tracing = Tracing(tracer_provider, meter_provider)
    return {"middleware": [tracing], "carry": [tracing.carrier]}


def observed(
    shown: JournalHandle[Any] | str | os.PathLike[str], *, meter_provider: metrics.MeterProvider | None = None
) -> None:
    """
    Have the SDK collect gauges of a journal: queues, limits, waits, runs by status.

    It is read by a connection of its own, in the thread that collects, so that a busy engine is not asked. A file that
    cannot be read gives no numbers.

    Args:
        shown: An `Engine`, a `Service` or a `Client`, or the path of a journal.
        meter_provider: By default the application's global one.

    Raises:
        UsageError: The journal is in memory: there is no file to read beside its engine.
    """
    path = shown.path if isinstance(shown, JournalHandle) else os.fspath(shown)
    if path == MEMORY:
        msg = "a journal in memory has no file that could be read beside its engine: ask engine.stats()"
        raise UsageError(msg)
    meter, reading = metrics.get_meter("durable", RELEASE, meter_provider), _Reading(path)
    for instrument, unit, name, labels in _OBSERVED:
        meter.create_observable_gauge(instrument, [partial(reading.of, name, labels)], unit, MEASURES[name][1])


class _Reading:
    """The numbers of a journal, as they stood a moment ago."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._read_at = -math.inf
        self._found: list[Measure] = []

    def of(self, name: str, labels: Sequence[str], _: metrics.CallbackOptions) -> list[metrics.Observation]:
        """What one instrument observes."""
        return [
            metrics.Observation(each.value, dict(zip(labels, each.labels, strict=True)))
            for each in self._fresh()
            if each.name == name
        ]

    def _fresh(self) -> list[Measure]:
        now = time.monotonic()
        if now - self._read_at >= _FRESH:
            try:
                with closing(open_readonly(self._path)) as conn:
                    conn.execute("BEGIN")
                    self._found = measures(conn, time.time())
            except (DurableError, OSError):
                self._found = []
            self._read_at = now
        return self._found


class _Active:
    """A run that is active in this process: what was recorded with it, once its driver has read that."""

    __slots__ = ("carried",)

    def __init__(self) -> None:
        self.carried = ""

    @property
    def parent(self) -> Context | None:
        """The context that spans of the run have for a parent."""
        traceparent = self.carried.partition(";")[0]
        return _PROPAGATOR.extract({_CARRIED_AS: traceparent}) if traceparent else None

    @property
    def asked_at(self) -> int | None:
        """When it was asked for, in nanoseconds since the epoch."""
        text = self.carried.partition(";")[2]
        return int(text) if text.isascii() and text.isdigit() else None


_active: ContextVar[_Active | None] = ContextVar("durable_telemetry_active", default=None)


class _Carrier:
    """What `Engine(carry=)` takes for a context variable: the place of a run in its trace."""

    name = _CARRIED_AS

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def get(self, default: Any, /) -> Any:
        """Of who starts a run: a span of that start. *default* where nobody traces."""
        with self._tracer.start_as_current_span("start", kind=SpanKind.PRODUCER) as span:
            if not span.get_span_context().is_valid:
                return default
            found: dict[str, str] = {}
            _PROPAGATOR.inject(found)
            return f"{found[_CARRIED_AS]};{time.time_ns()}"

    def set(self, value: Any, /) -> None:
        """Of a run that is about to be driven: what was recorded with it."""
        if not isinstance(value, str):
            return
        active = _active.get()
        if active is None:  # no run is driven here, only a step of one: by an engine on a cluster
            active = _Active()
            _active.set(active)
        active.carried = value


class Tracing(Middleware):
    """Emits the spans and metrics that the docstring of this module lists. Use `instrumented`."""

    def __init__(
        self, tracer_provider: trace.TracerProvider | None = None, meter_provider: metrics.MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer("durable", RELEASE, tracer_provider)
        meter = metrics.get_meter("durable", RELEASE, meter_provider)
        #: For `Engine(carry=)`.
        self.carrier: Carried = _Carrier(self._tracer)
        self._runs: dict[str, _Active] = {}
        self._started = meter.create_counter("durable.runs.started", "{run}", "Runs that began here.")
        self._ended = meter.create_counter("durable.runs.ended", "{run}", "Runs whose end was recorded here.")
        self._durations = meter.create_histogram("durable.step.duration", "s", "How long attempts took.")
        self._failed = meter.create_counter("durable.attempts.failed", "{try}", "Attempts that failed.")
        self._commits = meter.create_histogram("durable.commit.duration", "s", "How long commits took.")
        self._sizes = meter.create_histogram("durable.commit.size", "{write}", "Turns and requests in one commit.")
        self._lag = meter.create_histogram("durable.loop.lag", "s", "How late the event loop called what was due.")
        #: The loop whose lag is being measured.
        self._measured: asyncio.AbstractEventLoop | None = None
        #: Seconds that the commit took whose effects are told of.
        self._latest = 0.0

    async def run(self, activation: Activation, proceed: Callable[[], Awaitable[None]]) -> None:
        """Keep the run's place in its trace while it is active."""
        if activation.first:
            self._started.add(1, {WORKFLOW: activation.workflow})
        self._runs[activation.run_id] = active = _Active()
        _active.set(active)
        loop = asyncio.get_running_loop()
        if self._measured is not loop:
            self._measure(loop)
        try:
            await proceed()
        finally:
            if self._runs.get(activation.run_id) is active:
                del self._runs[activation.run_id]

    async def step(self, call: StepCall, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """A span around an attempt, as its function's current one."""
        active = _active.get()
        about = {RUN_ID: call.run_id, WORKFLOW: call.workflow, STEP: call.step, POSITION: call.position}
        outcome, began = "failed", time.perf_counter()
        try:
            with self._tracer.start_as_current_span(
                f"step {call.step}",
                context=None if active is None else active.parent,
                attributes={**about, ATTEMPT: call.attempt},
            ):
                found = await proceed()
            outcome = "succeeded"
        finally:
            measured = {WORKFLOW: call.workflow, STEP: call.step, "outcome": outcome}
            self._durations.record(time.perf_counter() - began, measured)
        return found

    def _measure(self, loop: asyncio.AbstractEventLoop) -> None:
        self._measured = loop
        loop.call_later(_LAG_EVERY, self._measure_again, loop, loop.time() + _LAG_EVERY)

    def _measure_again(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._lag.record(max(0.0, loop.time() - due))
        if self._runs:
            self._measure(loop)
        else:
            self._measured = None

    def committed(self, members: int, seconds: float) -> None:
        """Measured."""
        self._latest = seconds
        self._commits.record(seconds)
        self._sizes.record(members)

    def happened(self, event: EngineEvent) -> None:
        """The span of a transaction that has ended, or of a signal that the run has taken in."""
        about = {RUN_ID: event.run_id, WORKFLOW: event.workflow}
        if event.name == "signal.received":
            self._span(f"signal {event.about}", SpanKind.CONSUMER, event, {**about, SIGNAL: event.about or ""})
        elif event.transaction and event.name in _TRANSACTION_ENDED:
            about |= {STEP: event.step or "", POSITION: event.position or ""}
            self._span(f"transaction {event.step}", SpanKind.INTERNAL, event, {**about, ATTEMPT: event.attempt or 1})

    def _span(self, name: str, kind: SpanKind, event: EngineEvent, about: Mapping[str, str | int]) -> None:
        active, now = self._runs.get(event.run_id) or _Active(), time.time_ns()
        began = now - int(self._latest * 1e9) if event.transaction else now
        span = self._tracer.start_span(name, active.parent, kind, about, start_time=began)
        if event.name in _TRANSACTION_FAILED:
            span.set_status(Status(StatusCode.ERROR))
        span.end(now)

    def attempt_failed(self, failure: AttemptFailed) -> None:
        """Counted."""
        self._failed.add(1, {WORKFLOW: failure.workflow, STEP: failure.step})

    def run_succeeded(self, success: RunSuccess) -> None:
        """The run's span."""
        self._end(success.run_id, success.workflow, "succeeded", Status(StatusCode.OK))

    def run_failed(self, failure: RunFailure) -> None:
        """The run's span, with what it failed by."""
        self._end(failure.run_id, failure.workflow, "failed", Status(StatusCode.ERROR, failure.reason), failure.error)

    def run_cancelled(self, cancellation: RunCancellation) -> None:
        """The run's span."""
        status = Status(StatusCode.ERROR, cancellation.reason or "cancelled")
        self._end(cancellation.run_id, cancellation.workflow, "cancelled", status)

    def _end(self, run_id: str, workflow: str, word: str, status: Status, error: Exception | None = None) -> None:
        self._ended.add(1, {WORKFLOW: workflow, STATUS: word})
        active = self._runs.get(run_id) or _Active()
        span = self._tracer.start_span(
            f"run {workflow}",
            context=active.parent,
            kind=SpanKind.CONSUMER,
            attributes={RUN_ID: run_id, WORKFLOW: workflow, STATUS: word},
            start_time=active.asked_at,
        )
        if error is not None:
            span.record_exception(error)
        span.set_status(status)
        span.end()

"""
Requests and answers between a client and an engine: what travels, what is refused, and other releases.
"""

import asyncio
import json
import os
from typing import get_args

import pytest
from attrs import evolve, fields

from durable import Client, job
from durable._core.journal.events import RunStarted, RunSucceeded
from durable._core.recorded.export_format import RunFacts, RunHistory
from durable._core.release import RELEASE
from durable._shell.requests import sockets, wire
from durable._shell.requests.batch_requests import AddToBatch, CancelBatch, CreateBatches, NewBatch
from durable._shell.requests.callback_requests import CompleteCallback, FailCallback, KeepCallback
from durable._shell.requests.history_requests import (
    ForkRun,
    Imported,
    ImportRuns,
    RetryBatch,
    RetryHooks,
    RetryRun,
    RetryRunAnyway,
)
from durable._shell.requests.once import Once
from durable._shell.requests.prune_requests import (
    DeleteRun,
    PruneBatches,
    PruneBatchesAndKeys,
    Pruned,
    PruneRuns,
    PruneRunsAndKeys,
)
from durable._shell.requests.queue_requests import ChangeLimit, ChangeQueue, ClearQueue, PauseQueue
from durable._shell.requests.run_requests import (
    AskRun,
    CancelRun,
    PauseRun,
    RescheduleRun,
    ResolveStep,
    ResumeRun,
    SendSignal,
    StartRuns,
)
from durable._shell.requests.schedule_requests import (
    BackfillSchedule,
    DeleteSchedule,
    PauseSchedule,
    PutSchedule,
    ResumeSchedule,
    TriggerSchedule,
)
from durable._shell.rows.rows import NewRun
from durable._shell.writes.callback_answers import Answered
from durable.errors import InternalError, JournalVersionError, RunNotFoundError, UsageError

pytestmark = pytest.mark.anyio


@job
async def quick(number: int) -> int:
    return number


STARTED = RunStarted("w", 1, "id", b"\x00\xff", 9.5)
INNER = NewRun(0, "f", "w", 1, "job", "default", 0, None, "", {}, RunStarted("w", 1, "f", "[[],{}]", 0.0), delay=2.0)
NEW = NewRun(0, "id", "w", 1, "job", "q", 3, "key", "w:1", {"a": "é"}, STARTED, follow_ups=(INNER,))
HISTORY = RunHistory(
    RunFacts(run_id="r", workflow="w", version=1, sort="job", status="succeeded", created_at=1.0, ended_at=2.0),
    [RunStarted("w", 1, "r", "[[],{}]", 1.0), RunSucceeded("1", 2.0)],
)
#: One of each, and what it may result in.
EXAMPLES = [
    (StartRuns((NEW, INNER)), ["id", "f"]),
    (SendSignal("r", "go", '{"x": 1}', "d"), True),
    (SendSignal("r", "go", b"\xff\x00"), False),
    (CompleteCallback("cb1_x", '{"paid": true}'), None),
    (CompleteCallback("cb1_x", b"\xff\x00"), Answered("r", "0", failed=False, value=b"\xff\x00")),
    (FailCallback("cb1_x", '{"type": "ValueError"}'), Answered("r", "0", failed=True, value="{}")),
    (KeepCallback("cb1_x"), None),
    (AskRun("r", "approve", "1", "d1", "0f", "d"), "0f"),
    (CancelRun("r", "why 'not'"), True),
    (PauseRun("r"), True),
    (ResumeRun("r"), True),
    (RescheduleRun("r", None, 5.0), None),
    (ResolveStep("r", "0", "1", failed=False, by="me", reason="looked it up"), None),
    (RetryRun("r"), False),
    (RetryRunAnyway("r"), True),
    (RetryBatch("b", force=False), 2),
    (RetryHooks("r"), 2),
    (ForkRun("r", "3.1", {"3": "1", "4": b"\x01"}, "new"), "new"),
    (ImportRuns((HISTORY,)), Imported(["r"], [])),
    (PauseQueue("q", paused=True), True),
    (ClearQueue("q"), 7),
    (ChangeQueue("q", 3, 5, 1.5), None),
    (ChangeLimit("l", None, None, None, reset=True), None),
    (PauseSchedule("s"), True),
    (ResumeSchedule("s"), True),
    (TriggerSchedule("s", "schedule:s:trigger:1"), "schedule:s:trigger:1"),
    (PutSchedule("s", "0 3 * * *", None, "UTC", "skip", None, NEW, replace=False), True),
    (DeleteSchedule("s"), None),
    (BackfillSchedule("s", 1.5, 2.5), ["schedule:s:1"]),
    (CreateBatches((NewBatch("b", None, "all", {"a": "b"}, None, (NEW,), on_success=(INNER,)),)), ["id"]),
    (AddToBatch("b", (NEW,)), ["id"]),
    (CancelBatch("b", "why"), True),
    (PruneRuns(1.5, 20), Pruned(3, 20)),
    (PruneBatches(1.5), Pruned(0, None)),
    (PruneRunsAndKeys(1.5, 20), Pruned(3, 20)),
    (PruneBatchesAndKeys(1.5), Pruned(0, None)),
    (DeleteRun("r"), 3),
    (Once("0f" * 16, CancelRun("r")), True),
    (wire.WaitForEnd("r"), None),
    (wire.WaitForNews("r", "waiting:2"), None),
    (wire.WaitForAnswer("0f", "r"), None),
    (wire.FollowEvents("r", None, ("step.failed",)), ['{"name": "step.failed"}']),
    (wire.FollowEvents(None, "w", None), []),
    (wire.ScrubFile(), None),
    (wire.AskHealth(), ["degraded", "why"]),
]


@pytest.mark.parametrize("request_, result", EXAMPLES, ids=[type(each).__name__ for each, _ in EXAMPLES])
def test_what_travels_arrives_equal(request_, result):
    """
    Requests and what they result in, of every class that there is.
    """
    line = wire.encode_request(request_)
    assert line.count(b"\n") == 1
    assert wire.decode_request(line, "app.db") == request_
    answer = wire.encode_answer(request_, result)
    assert answer.count(b"\n") == 1
    assert wire.decode_answer(request_, answer, "app.db") == result


def test_every_request_has_an_example():
    """
    So that a new one is looked at above, and in the table below.
    """
    assert {type(each).__name__ for each, _ in EXAMPLES} == {*wire.REQUESTS, "Once"}


#: What a client of this version sends, and gets.
SPOKEN = {
    "StartRuns": "runs: tuple[NewRun, ...] -> list[str]",
    "SendSignal": "run_id: str, name: str, payload: Payload, dedup: str | None -> bool",
    "AskRun": "run_id: str, name: str, payload: Payload, digest: str, request: str, dedup: str | None -> str",
    "CancelRun": "run_id: str, reason: str -> bool",
    "CompleteCallback": "token: str, value: Payload -> durable._shell.writes.callback_answers.Answered | None",
    "FailCallback": "token: str, failure: Payload -> durable._shell.writes.callback_answers.Answered | None",
    "KeepCallback": "token: str -> NoneType",
    "PauseRun": "run_id: str -> bool",
    "ResumeRun": "run_id: str -> bool",
    "RescheduleRun": "run_id: str, at: float | None, delay: float | None -> NoneType",
    "ResolveStep": "run_id: str, position: str, value: Payload, failed: bool, by: str, reason: str -> NoneType",
    "RetryRun": "run_id: str -> bool",
    "RetryRunAnyway": "run_id: str -> bool",
    "RetryBatch": "batch_id: str, force: bool -> int",
    "RetryHooks": "run_id: str -> int",
    "ForkRun": "run_id: str, at: str, replace: Mapping[str, Payload], new_id: str -> str",
    "ImportRuns": "histories: tuple[RunHistory, ...] -> Imported",
    "PauseQueue": "queue: str, paused: bool -> bool",
    "ClearQueue": "queue: str -> int",
    "ChangeQueue": "queue: str, concurrency: int | None, count: int | None, per: float | None, reset: bool -> NoneType",
    "ChangeLimit": "limit: str, concurrency: int | None, count: int | None, per: float | None, reset: bool -> NoneType",
    "PauseSchedule": "name: str -> bool",
    "ResumeSchedule": "name: str -> bool",
    "TriggerSchedule": "name: str, run_id: str, run: NewRun | None -> str",
    "PutSchedule": "name: str, cron: str | None, every: float | None, timezone: str | None, overlap: str | None, "
    "missed: str | None, run: NewRun | None, replace: bool -> bool",
    "DeleteSchedule": "name: str -> NoneType",
    "BackfillSchedule": "name: str, since: float, until: float, ticks: tuple[Tick, ...] | None -> list[str]",
    "CreateBatches": "batches: tuple[NewBatch, ...] -> list[str]",
    "AddToBatch": "batch_id: str, runs: tuple[NewRun, ...] -> list[str]",
    "CancelBatch": "batch_id: str, reason: str -> bool",
    "PruneRuns": "before: float, after: int -> Pruned",
    "PruneBatches": "before: float, after: int -> Pruned",
    "PruneRunsAndKeys": "before: float, after: int -> Pruned",
    "PruneBatchesAndKeys": "before: float, after: int -> Pruned",
    "DeleteRun": "run_id: str -> int",
    "AskHealth": "",
    "ScrubFile": "",
    "FollowEvents": "run_id: str | None, workflow: str | None, kinds: tuple[str, ...] | None",
    "WaitForEnd": "run_id: str",
    "WaitForNews": "run_id: str, mark: str",
    "WaitForAnswer": "request: str, run_id: str",
}


def test_what_is_spoken_changes_with_its_version_alone():
    """
    Whoever changes a line of this table gives the protocol its next version; a new line needs none.
    """

    def written(cls):
        taken = ", ".join(f"{each.name}: {each.type}" for each in fields(cls))
        if cls in wire.UNRECORDED:
            return taken
        (result,) = get_args(cls.__orig_bases__[0])
        return f"{taken} -> {result.__name__ if type(result) is type else result}"

    assert (wire.VERSION, {name: written(cls) for name, cls in wire.REQUESTS.items()}) == (1, SPOKEN)


def line_of(request="CancelRun", version=wire.VERSION, **arguments):
    """
    As a client sends it.
    """
    asked = {"version": version, "release": RELEASE, "request": request, "arguments": arguments}
    return json.dumps(asked).encode() + b"\n"


def plain_run(**changes):
    """
    A new run as a client sends it, with *changes*.
    """
    (run,) = json.loads(wire.encode_request(StartRuns((INNER,))))["arguments"]["runs"]
    return run | changes


@pytest.mark.parametrize(
    "line, message",
    [
        (b"nonsense\n", "expected a line of JSON in UTF-8"),
        (b"\xff\xfe\n", "expected a line of JSON in UTF-8"),
        (b"[" * 100_000 + b"\n", "expected a line of JSON in UTF-8: maximum recursion"),
        (b"[1]\n", "expected an object in a line, found list"),
        (b'{"version": 1, "request": "CancelRun"}\n', 'expected a line of {"request": NAME'),
        (line_of("Explode"), "no request is called 'Explode'"),
        (line_of().replace(b"{", b'{"id": 5, ', 1), "id: expected a text of up to 100 characters, found 5"),
        (line_of().replace(b"{", b'{"id": "' + b"x" * 101 + b'", ', 1), "id: expected a text of up to 100 characters"),
        (line_of(), "CancelRun.run_id: expected str, found none"),
        (line_of(run_id=5), "CancelRun.run_id: expected str, found int 5"),
        (line_of(run_id="r", raeson="x"), "CancelRun.raeson: expected no field of this name, found one"),
        (line_of(run_id="half \ud800"), "surrogates not allowed"),
        (line_of("SendSignal", run_id="r", name="go", payload={}), 'SendSignal.payload: expected {"$bytes": base64}'),
        (line_of("SendSignal", run_id="r", name="go", payload=1), "payload: expected str | bytes, found int 1"),
        (line_of("PauseQueue", queue="q", paused=1), "PauseQueue.paused: expected bool, found int 1"),
        (line_of("PruneRuns", before=1.0, after=2**63), "PruneRuns.after: expected int of 64 bits"),
        (line_of("PruneRuns", before=float("nan")), "NaN is not JSON"),
        (line_of("PruneRuns", before="now"), "PruneRuns.before: expected float, found str 'now'"),
        (line_of("StartRuns", runs={}), "StartRuns.runs: expected tuple[durable._shell.rows.rows.NewRun, ...]"),
        (line_of("StartRuns", runs=[plain_run(), 7]), "StartRuns.runs[1]: expected durable._shell.rows.rows.NewRun"),
        (line_of("StartRuns", runs=[plain_run(priority="high")]), "StartRuns.runs[0].priority: expected int, "),
        (line_of("StartRuns", runs=[plain_run(colour="red")]), "StartRuns.runs[0].colour: expected no field of this"),
        (line_of("StartRuns", runs=[plain_run(retry="[]")]), "StartRuns.runs[0].retry: expected "),
        (line_of("ImportRuns", histories=["{}"]), "ImportRuns.histories: expected exported runs, the request, line 1"),
        (line_of("CreateBatches", batches=[{"batch_id": "b"}]), "CreateBatches.batches[0].parent: expected str | None"),
        (line_of("ForkRun", run_id="r", at="1", replace={"1": 2}, new_id="n"), "ForkRun.replace['1']: expected"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_request_is_refused_by_name(line, message):
    """
    One error, which says what was expected where; whatever the line is.
    """
    with pytest.raises(UsageError) as refused:
        wire.decode_request(line, "app.db")
    assert message in str(refused.value)


def test_what_only_the_owner_can_say_is_not_taken_from_a_client():
    """
    Numbers of runs and batches are the file's own.
    """
    said = evolve(NEW, run=5, parent=7, position="0", follows=8, batch=9, callback=10, behind=(1,))
    assert wire.decode_request(wire.encode_request(StartRuns((said,))), "app.db") == StartRuns((NEW,))


def test_a_request_of_other_types_is_refused_where_it_is_made():
    """
    Before anything is sent.
    """
    with pytest.raises(UsageError, match=r"CancelRun\.run_id: found int, the annotation asks for str"):
        wire.encode_request(CancelRun(5))


async def asked(path, line):
    """
    What an engine answers to *line*.
    """
    reader, writer = await asyncio.open_unix_connection(sockets.socket_path(str(path)))
    try:
        writer.write(line)
        return json.loads(await asyncio.wait_for(reader.readline(), 5))
    finally:
        writer.close()


async def test_a_refused_request_leaves_nothing(engines):
    """
    Not the first of its runs either; and the engine goes on.
    """
    engine = await engines.file(quick)
    line = line_of("StartRuns", runs=[plain_run(workflow="quick"), plain_run(run_id="g", priority=None)])
    answer = await asked(engines.path, line)
    assert (answer["error"], "priority" in answer["args"][0]) == ("UsageError", True)
    assert [each async for each in engine.runs()] == []
    assert await engine.run(quick(1)) == 1


# --- other releases -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, client",
    [
        (b'{"request": "cancel", "arguments": {"run_id": "r", "reason": ""}}\n', "durable of an older release: None"),
        (line_of(version=2, run_id="r"), f"durable {RELEASE}: 2"),
    ],
)
async def test_a_client_of_another_release_is_told_so(engines, line, client):
    """
    Who, which versions, what to do; as an error that every release can read.
    """
    await engines.file(quick)
    answer = await asked(engines.path, line)
    assert answer["error"] == "JournalVersionError"
    error = JournalVersionError(*answer["args"])
    assert error.path == str(engines.path)
    assert str(error).endswith(
        f"the engine that has it (process {os.getpid()}, durable {RELEASE}: {wire.VERSION}) and this client "
        f"({client}) speak different versions of the protocol. Use one release of durable for both: start the older of "
        "them anew with that of the other"
    )


async def test_releases_of_one_version_are_named_where_one_knows_more(engines):
    """
    A request or field that is new needs no new version: who does not know it says which release does.
    """
    await engines.file(quick)
    line = line_of("Explode").replace(f'"release": "{RELEASE}"'.encode(), b'"release": "99.0"')
    (message,) = (await asked(engines.path, line))["args"]
    assert message == f"no request is called 'Explode' (the client is durable 99.0, the engine durable {RELEASE})"


@pytest.fixture
async def answering(engines):
    """
    Something that has the file, and answers each line with one that the test chooses.
    """
    engine = await engines.file(quick)
    await engine.start(quick(1), id="later", delay=1_000)
    await engine.aclose()
    server = None

    async def listen(answer, end=b"\n"):
        nonlocal server

        async def serve(reader, writer):
            await reader.readline()
            writer.write(answer + end)
            writer.close()

        server = await asyncio.start_unix_server(serve, sockets.socket_path(str(engines.path)))
        return Client(engines.path)

    yield listen
    server.close()


@pytest.mark.parametrize(
    "answer",
    [
        b'{"error": "UsageError", "args": ["no request is called \'CancelRun\'"]}',  # before there was a version
        b'{"version": 2, "result": {"done": true}}',
    ],
)
async def test_an_engine_of_another_release_is_told_from_its_answer(answering, answer):
    """
    To whoever asks for something, and to whoever waits for a run to end, at once.
    """
    async with await answering(answer) as client:
        for asking in (client.get("later").cancel(), client.get("later").result()):
            with pytest.raises(JournalVersionError, match=f"and this client \\(durable {RELEASE}: 1\\)"):
                await asyncio.wait_for(asking, 5)


@pytest.mark.parametrize(
    "answer, error",
    [
        (b'{"version": 1, "error": "RunNotFoundError", "args": ["id", "x"]}', RunNotFoundError),
        (b'{"version": 2, "error": "JournalVersionError", "args": ["app.db", "newer"]}', JournalVersionError),
        (b'{"version": 1, "error": "NewerError", "args": []}', InternalError),
        (b'{"version": 1, "error": "RunNotFoundError", "args": ["id", "x", "newer"]}', InternalError),
        (b'{"version": 1, "error": "Any", "args": []}', InternalError),
        (b'{"version": 1}', InternalError),
        (b"hello", InternalError),
    ],
)
async def test_what_an_engine_refuses_is_raised_by_the_client(answering, answer, error):
    """
    The error itself; or that there was an answer that nobody understands.
    """
    async with await answering(answer) as client:
        with pytest.raises(error):
            await client.get("later").cancel()


async def test_half_an_answer_is_none(answering):
    """
    The engine died while it wrote: the client asks the next one, or records by itself what it asks for.
    """
    async with await answering(b'{"version": 1, "result": fal', end=b"") as client:
        assert await client.get("later").cancel("enough")
        assert (await client.get("later").info()).status == "pending"

"""
`start`, `signal`, `cancel`, `pause`, `resume`, `retry`: beside a live engine, and on a file that nobody owns.

The engine is in the test's own event loop, the command in a thread.
"""

import asyncio
import io
import json
import sys

import anyio.to_thread
import pytest
from structlog.testing import capture_logs

from durable import Queue, Rate, Schedule
from durable._cli.applications import load_application

pytestmark = pytest.mark.anyio

SOURCE = """
import asyncio
from attrs import frozen
from durable import Flow, Return, continue_as, job, sleep, step, wait_for, workflow

broken = {True}
kept_out = asyncio.Event()

@frozen
class Stop:
    street: str
    number: int = 1

@frozen
class Receipt:
    user: int
    stops: list[Stop]

@workflow
async def ride(user: int, *stops: Stop, fast: bool = False) -> Flow[Receipt]:
    if user < 0:
        raise ValueError("no such user")
    yield Return(Receipt(user, list(stops)))

@workflow
async def approval(number: int) -> Flow[object]:
    yield Return((yield wait_for("approved")))

@job
async def flaky(number: int) -> int:
    if broken:
        raise OSError("down")
    return number

@job
async def halved(number: int) -> float:
    return number / 2

@halved.on_success
def once_halved(finished):
    1 / finished.arguments["number"]

@workflow(key=lambda number: f"{1 / number}")
async def keyed(number: int) -> Flow[None]:
    yield sleep(3600)

@job
async def untyped(*values, **named):
    return [list(values), named]

@workflow
async def chain(left: int) -> Flow[int]:
    if left:
        yield continue_as(chain(left - 1))
    yield Return(left)
"""


class Desk:
    """An application, its engine, and the command line beside it."""

    def __init__(self, path, db, engines, cli):
        self.app, self.db, self.engines, self.cli = path, db, engines, cli
        self.module = load_application(str(path)).definitions[0]

    async def engine(self, **options):
        return await self.engines.file(self.module, **options)

    async def run(self, *argv):
        """A command, while the loop goes on."""
        return await anyio.to_thread.run_sync(lambda: self.cli(*argv, "--db", self.db))

    async def start(self, *argv):
        return await self.run("start", *argv, "--app", self.app)

    async def waiting(self, engine, *run_ids):
        """Runs that wait for a signal, oldest first."""
        for number, run_id in enumerate(run_ids):
            await engine.start(self.module.approval(number), id=run_id)
        await self.settled(engine)

    async def settled(self, engine):
        async with asyncio.timeout(30):
            while [1 async for _ in engine.runs(status=("pending", "running"), limit=1)]:
                await asyncio.sleep(0.002)

    async def statuses(self, engine):
        return {info.run_id: info.status async for info in engine.runs()}


@pytest.fixture
async def desk(tmp_path, tmp_db, engines, cli, monkeypatch):
    """
    A desk whose journal exists.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "app_of_requests.py"
    path.write_text(SOURCE)
    with capture_logs():  # an engine in this process would log into the command's output
        yield Desk(path, tmp_db, engines, cli)
    del sys.modules["app_of_requests"]


class Terminal(io.StringIO):
    """Somebody who types an answer."""

    def isatty(self):
        return True


# --- start ----------------------------------------------------------------------------------------


async def test_a_run_is_started_with_the_live_engine_and_waited_for(desk):
    """
    The first line is the id, the next ones the result; arguments were decoded by their annotations.
    """
    engine = await desk.engine()
    said = await desk.start("ride", "--args", '[7, {"street": "Main", "number": 2}, {"street": "Side"}]', "--wait")
    assert (said.code, said.err) == (0, "")
    run_id, result = said.lines
    assert json.loads(result) == {
        "user": 7,
        "stops": [{"street": "Main", "number": 2}, {"street": "Side", "number": 1}],
    }
    stop = desk.module.Stop
    assert await engine.get(run_id).result() == desk.module.Receipt(7, [stop("Main", 2), stop("Side")])


async def test_options_of_start_reach_the_run(desk):
    """
    Id, key, queue, priority, labels, delay and expiry are those of `Engine.start`.
    """
    engine = await desk.engine()
    said = await desk.start(
        "ride", "--arg", "user=1", "--arg", "fast=true", "--id", "r-1", "--key", "k-1", "--queue", "slow",
        "--delay", "2h", "--expires", "3h", "--priority", "5", "--label", "city=Bern", "--label", "team=x=y", "--json",
    )  # fmt: skip
    assert (said.code, said.values) == (0, [{"run_id": "r-1"}])
    info = await engine.get("r-1").info()
    assert (info.key, info.queue, info.priority, info.labels) == ("k-1", "slow", 5, {"city": "Bern", "team": "x=y"})
    assert info.status == "pending"
    rows = await engine._backend.read(lambda conn: conn.execute("SELECT kind, fire_at FROM durable_waits").fetchall())
    waits = {kind: fire_at - engine._backend.clock.now() for kind, fire_at in rows}
    assert 7_100 < waits.pop("start") <= 7_200
    assert 10_700 < waits.pop("expiry") <= 10_800
    assert not waits
    (event, *_) = await engine.get("r-1").history()
    assert event.value == '[[1],{"fast":true}]'


async def test_a_key_finds_its_run_or_says_whose_it_is(desk):
    """
    The same arguments join; others are refused, unless --on-conflict says what to do.
    """
    engine = await desk.engine()
    first = await desk.start("approval", "--arg", "number=1", "--key", "k")
    again = await desk.start("approval", "--args", '{"number": 1}', "--key", "k")
    assert first.out == again.out
    other = await desk.start("approval", "--arg", "number=2", "--key", "k")
    assert (other.code, other.out) == (2, "")
    assert "key 'k' belongs to run" in other.err
    instead = await desk.start("approval", "--arg", "number=2", "--key", "k", "--on-conflict", "replace")
    assert instead.code == 0
    with pytest.raises(Exception, match="cancelled"):
        await engine.get(first.out.strip()).result(5)


async def test_a_run_that_fails_while_waited_for_is_a_finding(desk):
    """
    Exit code 1, with the recorded traceback; as JSON, in fields.
    """
    await desk.engine()
    said = await desk.start("ride", "--arg", "user=-1", "--wait")
    assert said.code == 1
    assert said.lines[1] == "failed: ValueError: no such user"
    assert "app_of_requests.py" in said.out
    (told,) = (await desk.start("ride", "--arg", "user=-1", "--wait", "--json")).values
    assert (told["status"], told["reason"]) == ("failed", "ValueError: no such user")
    assert told["error"]["message"] == "no such user"


async def test_a_run_that_is_cancelled_while_waited_for_is_a_finding(desk):
    """
    With the reason.
    """
    engine = await desk.engine()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(desk.start("approval", "--arg", "number=1", "--id", "a", "--wait"))
        async with asyncio.timeout(5):
            while "a" not in await desk.statuses(engine):
                await asyncio.sleep(0.002)
        await engine.get("a").cancel("not today")
    assert (waiting.result().code, waiting.result().lines) == (1, ["a", "cancelled: not today"])


async def test_a_chain_is_waited_for_to_its_end(desk):
    """
    What the run continued as is named.
    """
    await desk.engine()
    (told,) = (await desk.start("chain", "--arg", "left=2", "--id", "c", "--wait", "--json")).values
    assert (told["run_id"], told["status"], told["result"]) == ("c", "succeeded", 0)
    assert told["ended_as"] != "c"


async def test_what_is_started_on_an_unowned_file_is_run_by_the_next_engine(desk):
    """
    Recorded when the command returns: nothing but the file is left of it.
    """
    await (await desk.engine()).aclose()
    said = await desk.start("ride", "--arg", "user=3", "--id", "r")
    assert (said.code, said.out, said.err) == (0, "r\n", "")
    engine = await desk.engine()
    assert (await engine.get("r").result(5)).user == 3


async def test_who_waits_on_an_unowned_file_is_told_and_gets_the_result_of_the_next_engine(desk):
    """
    A hint on standard error, so that nobody waits without knowing for what.
    """
    await (await desk.engine()).aclose()
    argv = [sys.executable, "-m", "durable", "start", "ride", "--arg", "user=3", "--id", "r", "--wait"]
    process = await asyncio.create_subprocess_exec(
        *argv,
        "--app",
        str(desk.app),
        "--db",
        str(desk.db),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert await process.stdout.readline() == b"r\n"
    hint = f"no engine has {desk.db} open: run r waits for one, and so does this command\n"
    assert (await process.stderr.readline()).decode() == hint
    await desk.engine(standby=True)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b'{"user": 3, "stops": []}\n', b"")


async def test_results_pass_through_the_codec_of_the_application(desk):
    """
    Hooks that make bytes of the records: arguments are written with them, the result is read with them.
    """
    source = f"{SOURCE}\nclass Hooks:\n    def encode(self, data): return data[::-1]\n    decode = encode\n"
    source += "from durable import Engine\nengine = Engine('unused.db', [ride, approval], codec=Hooks())\n"
    hooked = desk.app.with_name("hooked_of_requests.py")
    hooked.write_text(source)
    module = load_application(str(hooked)).definitions[0]
    try:
        await desk.engines.file(module, codec=module.Hooks())
        app = ("--app", f"{hooked}:engine")
        said = await desk.run("start", "ride", "--arg", "user=3", "--wait", *app)
        assert json.loads(said.lines[1]) == {"user": 3, "stops": []}
        await desk.run("start", "approval", "--arg", "number=3", "--id", "a", *app)
        said = await desk.run("signal", "a", "approved", "--payload", '{"by": "Ann"}', *app)
        assert (said.code, said.out) == (0, "a: signalled\n")
        said = await desk.run("start", "approval", "--arg", "number=3", "--id", "a", "--wait", "--json", *app)
        assert said.values[0]["result"] == {"by": "Ann"}
        said = await desk.run("start", "ride", "--arg", "user=-3", "--wait", *app)
        assert (said.code, said.lines[1]) == (1, "failed: ValueError: no such user")
    finally:
        del sys.modules["hooked_of_requests"]


async def test_what_would_stand_in_plain_in_an_encrypted_journal_is_refused_without_the_application(desk, tmp_path):
    """
    Also where no engine runs that would encrypt it: nobody asks for encryption and then wants this.
    """
    source = f"{SOURCE}\nclass Hooks:\n    def encode(self, data): return data[::-1]\n    decode = encode\n"
    source += "from durable import Engine\nengine = Engine('unused.db', [ride, approval], codec=Hooks())\n"
    hooked = desk.app.with_name("encrypting_of_requests.py")
    hooked.write_text(source)
    module = load_application(str(hooked)).definitions[0]
    try:
        engine = await desk.engines.file(module, codec=module.Hooks())
        app = ("--app", f"{hooked}:engine")
        await desk.run("start", "approval", "--arg", "number=3", "--id", "a", *app)
        await engine.aclose()
        for words in (("signal", "a", "approved", "--payload", '"s3cret"'), ("cancel", "a", "--reason", "s3cret")):
            said = await desk.run(*words)
            assert (said.code, "--app" in said.err) == (2, True), said
            assert (await desk.run(*words, *app)).code == 0
        assert b"s3cret" not in desk.db.read_bytes()
    finally:
        del sys.modules["encrypting_of_requests"]


async def test_the_payload_of_a_signal_is_read_as_the_type_that_the_application_gives_it(desk):
    """
    A `Signal` beside the workflow says what the JSON means; what does not fit is refused, and nothing is sent.
    """
    source = f"{SOURCE}\nimport datetime\nfrom durable import Signal\ndue = Signal('due', datetime.date)\n"
    typed = desk.app.with_name("typed_of_requests.py")
    typed.write_text(source)
    try:
        module = load_application(str(typed)).definitions[0]
        engine = await desk.engines.file(module)
        app = ("--app", str(typed))
        await desk.run("start", "approval", "--arg", "number=3", "--id", "a", *app)
        said = await desk.run("signal", "a", "due", "--payload", '"soon"', *app)
        assert said.code != 0
        assert "payload of signal 'due'" in said.err
        said = await desk.run("signal", "a", "due", "--payload", '"2026-01-01"', *app)
        assert (said.code, said.out) == (0, "a: signalled\n")
        assert await engine.get("a").status() == "waiting"
    finally:
        del sys.modules["typed_of_requests"]


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["rid"], "has no workflow or job 'rid' (did you mean 'ride'?). It has approval, chain, flaky, halved, "),
        (["ride"], "these are not the arguments of workflow 'ride': ride(user: int, *stops: "),
        (["ride", "--arg", "user=1", "--arg", "slow=true"], "unexpected keyword argument 'slow'"),
        (["ride", "--arg", 'user="x"'], "argument 'user' of workflow 'ride': expected int: found str 'x'"),
        (["ride", "--args", '[1, {"street": 5}]'], "argument '2' of workflow 'ride' at street: expected str: found"),
        (["ride", "--args", '["x"]'], "argument 'user' of workflow 'ride': expected int"),
        (["ride", "--args", '{"user": 1}', "--arg", "user=2"], "the argument 'user' is given twice"),
        (["ride", "--args", "[1]", "--arg", "user=2"], "multiple values for argument 'user'"),
        (["ride", "--args", "7"], "'7' is neither a list of arguments nor an object of them by name"),
        (["ride", "--args", "[NaN]"], "'[NaN]' is not JSON: NaN cannot be recorded"),
        (["ride", "--args", "[" * 100_000], "is not JSON: "),
        (["ride", "--arg", "user=abc"], "'abc' is not JSON: Expecting value; a text is quoted, for the shell as"),
        (["ride", "--arg", "user"], "'user' is not an argument: give NAME=JSON"),
        (["ride", "--arg", "a b=1"], "'a b=1' is not an argument: give NAME=JSON"),
        (["ride", "--arg", "user=1", "--label", "city"], "'city' is not a label: give NAME=VALUE"),
        (["ride", "--arg", "user=1", "--delay", "soon"], "'soon' is not a time"),
        (["ride", "--arg", "user=1", "--delay", "2030-01-01"], "'2030-01-01' is not a delay: give a span"),
        (["ride", "--arg", "user=1", "--delay", "nan"], "'nan' is not a delay: give a span"),
        (["ride", "--arg", "user=1", "--delay=-3"], "'-3' is not a delay: give a span"),
        (["ride", "--arg", "user=1", "--id", "a\nb"], "a run id must be printable"),
        (["keyed", "--arg", "number=0"], "key of workflow 'keyed' raised ZeroDivisionError: division by zero"),
        (["untyped", "--args", json.dumps(["x" * (2 << 20)])], "size in bytes is "),
    ],
)  # fmt: skip
async def test_a_start_that_cannot_be_is_refused(desk, argv, expected):
    """
    Exit code 2, nothing recorded; the message names the parameter, and what it expects.
    """
    engine = await desk.engine()
    said = await desk.start(*argv)
    assert (said.code, said.out) == (2, "")
    assert expected in " ".join(said.err.split())
    assert await desk.statuses(engine) == {}


async def test_arguments_without_annotations_arrive_as_they_are(desk):
    """
    And those that a function takes by any name, or in any number.
    """
    await desk.engine()
    said = await desk.start("untyped", "--args", '[1, {"a": null}]', "--arg", "more=[1.5]", "--wait")
    assert said.lines[1] == '[[1, {"a": null}], {"more": [1.5]}]'


async def test_start_names_what_is_missing(desk, cli):
    """
    A journal, or an application.
    """
    await desk.engine()
    said = cli("start", "ride", "--db", desk.db)
    assert (said.code, said.err) == (
        2,
        "durable start: which application? Name it with --app pkg.mod, or set DURABLE_APP\n",
    )
    said = cli("start", "ride", "--app", desk.app, "--db", desk.db.with_name("none.db"))
    assert said.code == 3
    assert "the file does not exist" in said.err


async def test_the_installed_command_imports_from_the_current_directory(desk):
    """
    As `python -m` does, although the script stands elsewhere.
    """
    await desk.engine()
    code = "import sys; sys.path.pop(0); from durable._cli.main import main; sys.exit(main())"
    argv = [sys.executable, "-c", code, "start", "ride", "--arg", "user=1", "--id", "r", "--db", str(desk.db)]
    done = await anyio.run_process([*argv, "--app", "app_of_requests"], cwd=desk.app.parent)
    assert done.stdout == b"r\n"


# --- schedules ------------------------------------------------------------------------------------


async def test_a_schedule_can_be_let_tick_now(desk):
    """
    `start schedule:NAME` needs no application; its run is waited for as any other.
    """
    nightly = Schedule("nightly", desk.module.ride(5), cron="0 3 * * *")
    engine = await desk.engine(schedules=[nightly])
    said = await desk.run("start", "schedule:nightly", "--wait")
    assert (said.code, said.lines[1]) == (0, '{"user": 5, "stops": []}')
    assert (await engine.get(said.lines[0]).result()).user == 5
    assert said.lines[0].startswith("schedule:nightly:trigger:")
    said = await desk.run("start", "schedule:daily")
    assert said.code == 3
    assert "no schedule is called 'daily'" in said.err
    said = await desk.run("start", "schedule:nightly", "--arg", "x=1", "--label", "a=b", "--on-conflict", "join")
    assert said.code == 2
    assert "leave out --arg, --on-conflict, --label" in said.err
    await engine.aclose()
    argv = [sys.executable, "-m", "durable", "start", "schedule:nightly", "--wait", "--app", str(desk.app)]
    process = await asyncio.create_subprocess_exec(
        *argv, "--db", str(desk.db), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    assert b"no engine has" in await process.stderr.readline()
    await desk.engine(schedules=[nightly], standby=True)
    out, _ = await process.communicate()
    assert out.splitlines()[1] == b'{"user": 5, "stops": []}'


async def test_queues_and_schedules_are_paused_and_resumed_beside_runs(desk):
    """
    `queue:NAME`, `schedule:NAME`: one line each; what is so already is nothing to do.
    """
    engine = await desk.engine(schedules=[Schedule("nightly", desk.module.ride(5), cron="0 3 * * *")])
    await desk.waiting(engine, "a")
    targets = ("queue:default", "schedule:nightly", "a")
    said = await desk.run("pause", *targets)
    assert (said.code, said.lines) == (0, ["a: paused", "queue 'default': paused", "schedule 'nightly': paused"])
    assert (await engine.queue("default").info()).paused
    assert (await engine.schedule("nightly").info()).paused
    assert await engine.get("a").status() == "paused"
    said = await desk.run("pause", *targets, "--json")
    assert said.code == 0
    assert [(each["outcome"], each.get("run_id", each.get("queue", each.get("schedule")))) for each in said.values] == [
        ("nothing", "a"),
        ("nothing", "default"),
        ("nothing", "nightly"),
    ]
    said = await desk.run("resume", *targets)
    assert (said.code, said.lines) == (0, ["a: resumed", "queue 'default': resumed", "schedule 'nightly': resumed"])
    said = await desk.run("resume", *targets)
    assert said.lines == [
        "a: nothing to do: it is not paused",
        "queue 'default': nothing to do: it is not paused",
        "schedule 'nightly': nothing to do: it is not paused",
    ]
    assert not (await engine.queue("default").info()).paused


async def test_runs_of_a_schedule_are_told_from_the_schedule(desk):
    """
    Their ids begin as it is named; the beginning of one is enough for them, too.
    """
    engine = await desk.engine(schedules=[Schedule("nightly", desk.module.approval(5), cron="0 3 * * *")])
    run_id = (await desk.run("start", "schedule:nightly")).out.strip()
    await desk.settled(engine)
    assert (await desk.run("pause", run_id[:-1])).out == f"{run_id}: paused\n"
    assert (await desk.run("resume", run_id)).out == f"{run_id}: resumed\n"
    assert (await desk.run("cancel", run_id)).out == f"{run_id}: asked to end\n"


@pytest.mark.parametrize(
    "argv, code, expected",
    [
        (["pause", "schedule:daily"], 3, "no schedule is called 'daily' in this journal"),
        (["pause", "schedule:a:b"], 3, "no run of this journal has an id"),
        (["pause", "queue:"], 2, "which queue? Write queue:NAME"),
        (["cancel", "queue:default"], 3, "(Queues and schedules can be paused and resumed)"),
        (["cancel", "nobody"], 3, "no run of this journal has an id that is, or begins with, 'nobody'"),
        (["cancel", "a", "nobody"], 3, "'nobody'"),
        (["signal", "nobody", "go"], 3, "'nobody'"),
        (["cancel", "key:none"], 3, "no run of this journal has the key 'none'"),
        (["cancel", ""], 3, "no run can be called ''"),
        (["cancel"], 2, "which runs? Name them, or choose by filters as in `durable list`; --status open takes all"),
        (["retry"], 2, "--status failed takes all"),
        (["resume"], 2, "--status paused,blocked takes all"),
        (["signal", "go"], 2, "which runs?"),
        (["signal"], 2, "the following arguments are required: NAME"),
        (["signal", "a", "go", "--payload", "yes"], 2, "'yes' is not JSON"),
        (["signal", "a", "go", "--payload", f'"{"x" * (2 << 20)}"'], 2, "payload of signal 'go': size in bytes is "),
        (["cancel", "a", "--workflow", "approval"], 2, "name runs, or choose them by filters: not both"),
        (["cancel", "--status", "done"], 2, "'done' is not a status"),
    ],
)
async def test_a_request_for_nothing_that_exists_changes_nothing(desk, argv, code, expected):
    """
    Exit codes 2 and 3; if one of several runs is unknown, none is touched.
    """
    engine = await desk.engine()
    await desk.waiting(engine, "a")
    said = await desk.run(*argv)
    assert (said.code, said.out) == (code, "")
    assert expected in " ".join(said.err.split())
    assert await desk.statuses(engine) == {"a": "waiting"}


# --- requests for runs that are named -------------------------------------------------------------


async def test_a_signal_reaches_the_run_beside_its_engine(desk):
    """
    Its payload is JSON; a dedup id is accepted once, also when the run has ended.
    """
    engine = await desk.engine()
    await desk.waiting(engine, "a", "b")
    said = await desk.run("signal", "a", "approved", "--payload", '{"by": "Ann"}', "--dedup", "d")
    assert (said.code, said.out, said.err) == (0, "a: signalled\n", "")
    assert await engine.get("a").result(5) == {"by": "Ann"}
    said = await desk.run("signal", "a", "approved", "--dedup", "d")
    assert (said.code, said.out) == (0, "a: nothing to do: a signal with this --dedup was accepted before\n")
    said = await desk.run("signal", "a", "approved", "--json")
    assert said.code == 1
    assert said.values == [
        {
            "request": "signal",
            "run_id": "a",
            "workflow": "approval",
            "status": "succeeded",
            "outcome": "refused",
            "reason": "cannot signal 'approved' to run 'a': it is succeeded. Start a new run",
        }
    ]
    assert (await desk.run("signal", "b", "approved")).code == 0
    assert await engine.get("b").result(5) is None


async def test_a_run_that_has_ended_is_refused_with_the_reason(desk):
    """
    Exit code 1, although another one was done; to cancel it is nothing to do.
    """
    engine = await desk.engine()
    await (await engine.start(desk.module.ride(1), id="over")).result()
    await desk.waiting(engine, "a")
    said = await desk.run("pause", "over", "a")
    assert (said.code, said.lines) == (1, ["over: refused: cannot pause run 'over': it is succeeded", "a: paused"])
    assert (await desk.run("resume", "over")).out == "over: refused: cannot resume run 'over': it is succeeded\n"
    assert "Only failed runs can be retried" in (await desk.run("retry", "over")).out
    said = await desk.run("cancel", "over")
    assert (said.code, said.out) == (0, "over: nothing to do: it has ended\n")


async def test_runs_are_found_by_key_and_by_the_beginning_of_the_id_and_asked_once(desk):
    """
    As everywhere; two names of one run are one request.
    """
    engine = await desk.engine()
    await engine.start(desk.module.approval(1), id="abc-1", key="k")
    await desk.settled(engine)
    assert (await desk.run("cancel", "key:k", "abc", "abc-1", "--reason", "late")).lines == ["abc-1: asked to end"]
    with pytest.raises(Exception, match="late"):
        await engine.get("abc-1").result(5)


async def test_options_may_stand_anywhere_between_the_runs(desk):
    """
    Also before the name of a signal.
    """
    engine = await desk.engine()
    await desk.waiting(engine, "a", "b")
    said = await desk.run("pause", "a", "--status", "open", "b")
    assert "name runs, or choose them by filters: not both" in said.err
    said = await desk.run("signal", "a", "--payload", "1", "b", "--dedup", "d", "approved")
    assert said.lines == ["a: signalled", "b: signalled"]
    assert [await engine.get(each).result(5) for each in ("a", "b")] == [1, 1]


async def test_two_dashes_end_the_options(desk, cli):
    """
    For a run whose id begins with one.
    """
    engine = await desk.engine()
    await desk.waiting(engine, "a", "-b")
    said = await anyio.to_thread.run_sync(lambda: cli("cancel", "--db", desk.db, "--reason", "late", "--", "a", "-b"))
    assert said.lines == ["a: asked to end", "-b: asked to end"]


async def test_a_failed_run_is_retried(desk):
    """
    It goes on from what failed; once it is under way there is nothing to do.
    """
    engine = await desk.engine()
    desk.module.broken.add(True)
    run = await engine.start(desk.module.flaky(1), id="f")
    with pytest.raises(Exception, match="down"):
        await run.result(5)
    desk.module.broken.clear()
    await engine.queue("default").pause()
    assert (await desk.run("retry", "f")).out == "f: resumed from what failed\n"
    assert (await desk.run("retry", "f")).out == "f: nothing to do: it has not ended\n"
    await engine.queue("default").resume()
    assert await run.result(5) == 1


async def test_a_queue_is_throttled_while_it_runs(desk):
    """
    Until it is reset; and what makes no sense is refused.
    """
    engine = await desk.engine()
    said = await desk.run("throttle", "queue:mail", "--concurrency", "2", "--rate", "100/60")
    assert said.out == "queue:mail: changed\n"
    assert (await engine.queue("mail").info()).changed == Queue("mail", 2, rate=Rate(100, per=60))
    said = await desk.run("throttle", "queue:mail", "--reset")
    assert said.out == "queue:mail: the program's numbers hold again\n"
    assert (await engine.queue("mail").info()).changed is None
    for argv, expected in (
        (("queue:mail",), "give --concurrency, --rate or both; or --reset alone"),
        (("queue:mail", "--concurrency", "1", "--reset"), "or --reset alone"),
        (("mail", "--reset"), "'mail' is neither queue:NAME nor limit:NAME"),
        (("queue:mail", "--rate", "fast"), "'fast' is no rate"),
        (("queue:mail", "--concurrency", "0"), "concurrency"),
        (("limit:api", "--concurrency", "1"), "no limit is called 'api'"),
    ):
        said = await desk.run("throttle", *argv)
        assert (said.code, said.out) == (2, "")
        assert expected in said.err


async def test_hooks_that_went_wrong_are_told_and_called_again(desk):
    """
    `show` and `doctor` say which, and how to make up for them; a run of which no hook went wrong has nothing to do.
    """
    engine = await desk.engine()
    desk.module.broken.clear()
    for number in (1, 0):
        await (await engine.start(desk.module.halved(number), id=f"h{number}")).result(5)
    shown = (await desk.run("show", "h0")).out
    assert "hooks that went wrong" in shown
    assert "division by zero" in shown
    assert "`durable retry-hooks h0` makes up for them" in shown
    (failed,) = (await desk.run("show", "h0", "--json")).values[0]["hook_errors"]
    assert failed["hook"] == "once_halved"
    assert "hooks that went wrong: once_halved of h0 (ZeroDivisionError" in (await desk.run("doctor")).out
    assert (await desk.run("retry-hooks", "h0", "h1")).lines == [
        "h0: its hooks are called again",
        "h1: nothing to do: no hook of it went wrong",
    ]
    said = await desk.run("retry-hooks", "--workflow", "halved", "--yes")
    assert said.lines[-1] == "1 done"
    await engine.idle()
    assert len((await engine.get("h0").info()).hook_errors) == 1


async def test_what_is_recorded_on_an_unowned_file_is_there_for_the_next_engine(desk):
    """
    Acknowledged means recorded: the engine of later acts on it; the person is told that none is running.
    """
    engine = await desk.engine()
    await desk.waiting(engine, "a", "b", "c")
    await engine.aclose()
    said = await desk.run("signal", "a", "approved", "--payload", '"yes"')
    assert (said.code, said.out) == (0, "a: signalled\n")
    assert said.err == f"no engine has {desk.db} open: what was recorded takes effect once one has\n"
    assert (await desk.run("cancel", "b", "--reason", "late")).code == 0
    assert (await desk.run("pause", "c", "queue:other")).code == 0
    said = await desk.run("pause", "c")
    assert (said.out, said.err) == ("c: nothing to do: it is paused already\n", "")
    engine = await desk.engine()
    assert await engine.get("a").result(5) == "yes"
    with pytest.raises(Exception, match="late"):
        await engine.get("b").result(5)
    assert await engine.get("c").status() == "paused"
    assert (await engine.queue("other").info()).paused


async def test_a_batch_is_retried_by_its_id(desk):
    """
    What failed in it; there may be nothing, or no such batch.
    """
    engine = await desk.engine()
    desk.module.broken.add(True)
    async with engine.batch(id="all") as batch:
        batch.add_many([desk.module.flaky(number) for number in range(3)])
    assert (await batch.wait(5)).failed == 3
    desk.module.broken.clear()
    assert (await desk.run("retry", "batch:all")).out == "batch 'all': resumed from what failed\n"
    assert (await batch.wait(5)).outcome == "succeeded"
    assert (await desk.run("retry", "batch:all")).out == "batch 'all': nothing to do: nothing in it has failed\n"
    said = await desk.run("retry", "batch:none")
    assert (said.code, "no batch has the id 'none'" in said.err) == (3, True)


async def test_runs_are_deleted_once_somebody_said_yes(desk):
    """
    Also a run that was named: nothing of it is left. What is open is refused.
    """
    engine = await desk.engine()
    await desk.waiting(engine, "a", "b")
    await engine.get("a").signal("approved")
    await engine.get("a").result(5)
    said = await desk.run("delete", "a")
    assert "Delete 1 run (a)?" in said.err
    assert await desk.statuses(engine) == {"a": "succeeded", "b": "waiting"}
    assert (await desk.run("delete", "a", "--yes")).lines[-1] == "a: deleted"
    said = await desk.run("delete", "b", "--yes")
    assert (said.code, said.lines[-1]) == (1, "b: refused: cannot delete run 'b': it is waiting. Cancel it first")
    assert await desk.statuses(engine) == {"b": "waiting"}


# --- many -----------------------------------------------------------------------------------------


async def test_filters_choose_runs_that_the_request_is_for(desk):
    """
    Ended runs are left out, unless --status asks for them; the count comes first, the outcomes in numbers last.
    """
    engine = await desk.engine()
    await desk.waiting(engine, "a", "b", "c", "d")
    await engine.get("a").signal("approved")
    await engine.get("a").result(5)
    said = await desk.run("cancel", "--workflow", "approval", "--yes")
    assert (said.code, said.lines) == (
        0,
        ["3 runs (d, c, b)", "d: asked to end", "c: asked to end", "b: asked to end", "3 done"],
    )
    await desk.settled(engine)
    said = await desk.run("cancel", "--workflow", "approval", "--status", "open", "--yes")
    assert (said.code, said.out) == (0, "no runs fit\n")
    said = await desk.run("pause", "--workflow", "approval", "--status", "ended", "--yes")
    assert said.code == 1
    assert said.lines[0] == "4 runs (d, c, b and 1 more)"
    assert said.lines[-1] == "4 refused"
    said = await desk.run("cancel", "--workflow", "approval", "--status", "ended", "--yes", "--json")
    assert said.code == 0
    assert {each["outcome"] for each in said.values} == {"nothing"}
    assert len(said.values) == 4


async def test_many_failed_runs_are_retried_by_filter(desk):
    """
    `retry --status failed`: more than one page of them.
    """
    engine = await desk.engine()
    desk.module.broken.add(True)
    await engine.start_many([desk.module.flaky(number) for number in range(450)])
    await desk.settled(engine)
    desk.module.broken.clear()
    said = await desk.run("retry", "--status", "failed", "--yes")
    assert (said.code, said.lines[-1]) == (0, "450 done")
    await desk.settled(engine)
    assert set((await desk.statuses(engine)).values()) == {"succeeded"}


async def test_many_runs_of_an_unowned_file_are_cancelled_in_pages(desk):
    """
    450 requests without an engine: all recorded, and done by the next one.
    """
    engine = await desk.engine()
    await engine.start_many([desk.module.approval(number) for number in range(450)])
    await desk.settled(engine)
    await engine.aclose()
    said = await desk.run("cancel", "--status", "open", "--yes", "--json")
    assert (said.code, len(said.values)) == (0, 450)
    assert {each["outcome"] for each in said.values} == {"done"}
    engine = await desk.engine()
    async with asyncio.timeout(10):
        while set((await desk.statuses(engine)).values()) != {"cancelled"}:
            await asyncio.sleep(0.01)


async def test_one_signal_goes_to_many_runs(desk):
    """
    With filters, the only word is the signal's name.
    """
    engine = await desk.engine()
    await desk.waiting(engine, "a", "b")
    said = await desk.run("signal", "approved", "--waiting-for", "approved", "--payload", "true", "--yes")
    assert (said.code, said.lines[-1]) == (0, "2 done")
    assert [await engine.get(each).result(5) for each in ("a", "b")] == [True, True]


async def test_a_dry_run_lists_and_changes_nothing(desk):
    """
    Of runs that are named, of those that filters find, of queues; nobody is asked.
    """
    engine = await desk.engine()
    await desk.waiting(engine, "a", "b")
    said = await desk.run("cancel", "--workflow", "approval", "--dry-run")
    assert said.lines == [
        "would cancel b (approval, waiting)",
        "would cancel a (approval, waiting)",
        "2 in all; nothing was changed",
    ]
    said = await desk.run("pause", "a", "queue:default", "--dry-run")
    assert said.lines[:2] == ["would pause a (approval, waiting)", "would pause queue 'default'"]
    (told,) = (await desk.run("cancel", "a", "--dry-run", "--json")).values
    fields = {"request": "cancel", "run_id": "a", "workflow": "approval", "status": "waiting", "dry_run": True}
    assert told == fields
    said = await desk.run("cancel", "--workflow", "none", "--dry-run", "--json")
    assert (said.code, said.out) == (0, "")
    assert set((await desk.statuses(engine)).values()) == {"waiting"}
    assert not (await engine.queue("default").info()).paused


async def test_nobody_is_changed_by_filters_unless_somebody_agrees(desk, monkeypatch):
    """
    Without a terminal it needs --yes; at one, anything but yes is a no.
    """
    engine = await desk.engine()
    await desk.waiting(engine, "a", "b")
    argv = ("cancel", "--workflow", "approval")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    said = await desk.run(*argv)
    assert (said.code, said.out) == (2, "")
    assert "Cancel 2 runs (b, a)? Nobody can be asked" in said.err
    monkeypatch.setattr(sys, "stdin", Terminal("no\n"))
    said = await desk.run(*argv)
    assert (said.code, said.out, said.err) == (0, "nothing was changed\n", "Cancel 2 runs (b, a)? [y/N] ")
    assert set((await desk.statuses(engine)).values()) == {"waiting"}
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    said = await desk.run(*argv)
    assert (said.code, said.lines) == (0, ["b: asked to end", "a: asked to end", "2 done"])


async def test_what_repeats_is_counted(desk):
    """
    Of many runs with the same outcome the first are named, the others counted; a program gets all of them.
    """
    engine = await desk.engine()
    await desk.waiting(engine, *(f"run-{n}" for n in range(25)))
    said = await desk.run("pause", "--workflow", "approval", "--dry-run")
    assert said.lines[19:] == ["would pause run-5 (approval, waiting)", "and 5 more: approval, waiting",
        "25 in all; nothing was changed"]  # fmt: skip
    said = await desk.run("cancel", "--workflow", "approval", "--yes")
    assert len([line for line in said.lines if line.endswith(": asked to end") and line.startswith("run-")]) == 20
    assert said.lines[-2:] == ["and 5 more: asked to end", "25 done"]
    await desk.settled(engine)
    said = await desk.run("delete", *(f"run-{n}" for n in range(25)), "--yes", "--json")
    assert len(said.values) == 25


async def test_a_run_pruned_between_is_one_refusal(desk):
    """
    It was found, and is gone when its request comes: the others are made.
    """
    engine = await desk.engine()
    await desk.waiting(engine, "a")
    await (await engine.start(desk.module.ride(1), id="over")).result()

    class Pruner(Terminal):
        """Deletes ended runs while the person thinks."""

        def readline(self):
            asyncio.run_coroutine_threadsafe(engine.prune(older_than=-1), loop).result(5)
            return "y\n"

    loop = asyncio.get_running_loop()
    old, sys.stdin = sys.stdin, Pruner()
    try:
        said = await desk.run("cancel", "--since", "1h", "--status", "open,ended")
    finally:
        sys.stdin = old
    assert said.code == 1
    assert said.lines[0] == "over: refused: no run with id 'over' in this journal (it may have been pruned)"
    assert said.lines[1:] == ["a: asked to end", "1 done, 1 refused"]


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["start", "signal", "cancel", "pause", "resume", "retry", "delete"])
def test_help_has_a_summary_every_option_and_an_example(cli, command):
    """
    `durable COMMAND --help` renders whole.
    """
    said = cli(command, "--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"usage: durable {command} ")
    assert "example" in said.out
    assert f"  durable {command} " in said.out
    assert "--db FILE" in said.out
    assert "--json" in said.out
    if command != "start":
        assert "--dry-run" in said.out
        assert "--yes" in said.out
        assert "--waiting-for NAME" in said.out

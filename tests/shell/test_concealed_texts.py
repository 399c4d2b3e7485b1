"""
With hooks that encrypt, what is said about values is as little to be read in the file as the values are; those who
have the hooks read it as ever.
"""

import sqlite3
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from durable import (
    Client,
    Engine,
    Flow,
    Return,
    RunCancelled,
    Schedule,
    Snooze,
    cancel_run,
    cursor,
    gather,
    job,
    set_attributes,
    sleep,
    step,
    wait_for,
    workflow,
)
from durable._core.codec.codec import Codec
from durable._core.codec.digests import may_be_equal
from durable.codecs import AesGcm, Chain, Zlib
from durable.errors import (
    EncodeError,
    KeyConflictError,
    RunBlockedError,
    RunCancelledError,
    RunFailedError,
    UsageError,
)

pytestmark = pytest.mark.anyio

KEY = b"k" * 32
#: In every value and text that is to be hidden; "open" is in what stays readable.
SECRET = "a1b2-secret"


def encrypting():
    """
    Another object each time, as in another process.
    """
    return Chain(Zlib(), AesGcm(KEY))


@step
async def fails(text: str) -> str:
    await cursor("").advance(text)
    raise ValueError(text)


SNOOZED = []


@step
async def snoozes(text: str) -> str:
    if not SNOOZED:
        SNOOZED.append(text)
        raise Snooze(0.01, text)
    return text


@step
async def returns(text: str) -> str:
    return text


@job
async def failing_job(text: str) -> str:
    raise LookupError(text)


@job
async def quick(text: str) -> str:
    return text


@workflow
async def failing(text: str) -> Flow[str]:
    set_attributes(text=text)
    try:
        yield gather(failing_job(text), quick(text))
    except ExceptionGroup:
        yield snoozes(text)
    value: str = yield fails(text)
    yield Return(value)


@workflow
async def waits(text: str) -> Flow[str]:
    try:
        value: str = yield wait_for("go", str)
    except RunCancelled as error:
        if text.startswith("clean"):
            raise OSError(f"{text} while {error}") from None
        raise
    yield Return(value)


@workflow
async def parent(text: str) -> Flow[str]:
    try:
        value: str = yield waits(text)
    except RunCancelledError as error:
        yield Return(str(error))
    yield Return(value)


@workflow
async def cancels(text: str, other: str) -> Flow[str]:
    yield cancel_run(other, reason=text)
    yield Return(text)


@workflow
async def gives_up(text: str) -> Flow[str]:
    yield sleep(0.01)
    raise RunCancelled(text)


@workflow
async def changes(text: str) -> Flow[str]:
    value: str = yield returns(text)
    go: str = yield wait_for("go", str)
    yield Return(value + go)


SEEN = []


@failing.on_failure
def hook(finished):
    SEEN.append(finished.reason)
    raise RuntimeError(f"hook {SECRET}")


def tick(at):
    raise RuntimeError(f"tick {SECRET}")


DEFINITIONS = (failing, failing_job, quick, waits, parent, cancels, gives_up, changes)


def plain_cells(path, text):
    """
    The columns in which *text* can be read.
    """
    found = set()
    with closing(sqlite3.connect(path)) as conn:
        tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in conn.execute(f"SELECT * FROM {table}").fetchall():
                columns = [name for _, name, *_ in conn.execute(f"PRAGMA table_info({table})")]
                for name, cell in zip(columns, row, strict=True):
                    data = cell if isinstance(cell, bytes) else str(cell).encode()
                    if text.encode() in data:
                        found.add((table, name))
    return found


async def fill(engine, reached):
    """
    One run of each kind, whose texts all hold the secret.
    """
    with pytest.raises(RunFailedError, match=SECRET):
        await engine.run(failing(SECRET), id="failing")
    with pytest.raises(RunFailedError, match=SECRET):
        await engine.run(failing_job(SECRET), id="failing-job")
    waiting = await engine.start(waits(SECRET), id="cancelled")
    assert await waiting.cancel(f"because {SECRET}")
    with pytest.raises(RunCancelledError, match=f"because {SECRET}"):
        await waiting.result()
    waiting = await engine.start(waits(f"clean {SECRET}"), id="unclean")
    await reached(waiting, "waiting")
    assert await waiting.cancel(f"because {SECRET}")
    with pytest.raises(RunCancelledError, match=f"because {SECRET}"):
        await waiting.result()
    of_parent = await engine.start(parent(SECRET), id="parent")
    await reached(of_parent, "waiting")
    await engine.run(cancels(SECRET, "parent~.0"), id="cancels")
    assert SECRET in await of_parent.result()
    with pytest.raises(RunCancelledError, match=SECRET):
        await engine.run(gives_up(SECRET), id="gives-up")
    async with engine.batch(id="batch") as batch:
        batch.add(waits(SECRET))
    assert await batch.cancel(f"because {SECRET}")
    await batch.wait(20)


async def test_nothing_that_came_from_a_value_can_be_read_in_the_file(tmp_db, reached):
    """
    Errors, reasons, reports of hooks and batches, snoozes: none is in a cell in plain, nor in the bytes.
    """
    SNOOZED.clear()
    SEEN.clear()
    with capture_logs() as logs:
        async with Engine(tmp_db, DEFINITIONS, codec=encrypting()) as engine:
            await fill(engine, reached)
    assert {"run.failed", "run.cleanup_failed", "hook.failed"} <= {each["event"] for each in logs}
    assert [each for each in logs if SECRET in repr(each)] == []
    assert plain_cells(tmp_db, SECRET) == set()
    assert SECRET.encode() not in tmp_db.read_bytes()
    assert [f"ValueError: {SECRET}"] == SEEN
    with closing(sqlite3.connect(tmp_db)) as conn:
        reasons = dict(conn.execute("SELECT run_id, reason FROM durable_runs WHERE reason IS NOT NULL"))
    assert reasons["failing"].startswith("ValueError: [encrypted: ")
    assert reasons["cancelled"].startswith("[encrypted: ")
    assert "; its clean-up failed: OSError: [encrypted: " in reasons["unclean"]


async def test_who_has_the_hooks_reads_what_is_said(tmp_db, reached):
    """
    An engine that opens the file, and a client, say the same as where nothing is encrypted.
    """
    said = []
    for codec, path in ((encrypting(), tmp_db), (None, tmp_db.with_name("plain.db"))):
        SNOOZED.clear()
        async with Engine(path, DEFINITIONS, codec=codec) as engine:
            await fill(engine, reached)
        texts = []
        async with Client(path, codec=None if codec is None else encrypting()) as client:
            for name in ("failing", "failing-job", "cancelled", "unclean", "parent~.0", "gives-up"):
                run = client.get(name)
                info = await run.info()
                why = (await run.why()).partition(" ago")[2]
                texts += [info.reason, info.error, [each.error for each in info.hook_errors], why]
            texts.append((await client.get_batch("batch").info()).reason)
        said.append(texts)
    assert said[0] == said[1]
    assert said[0].count(f"because {SECRET}") == 2


async def test_a_reason_from_who_has_no_codec_is_concealed_by_the_engine(tmp_db, reached):
    """
    As `durable cancel --reason` gives one, for a run or a batch.
    """
    async with Engine(tmp_db, DEFINITIONS, codec=encrypting()) as engine, Client(tmp_db) as client:
        run = await engine.start(waits("text"), id="run")
        async with engine.batch(id="batch") as batch:
            batch.add(waits("text"))
        await client.get("run").cancel(f"because {SECRET}")
        await client.get_batch("batch").cancel(f"because {SECRET}")
        await reached(run, "cancelled")
        assert (await run.info()).reason == f"because {SECRET}"
        assert (await batch.info()).reason == f"because {SECRET}"
    assert plain_cells(tmp_db, SECRET) == set()


def said_without_a_codec(client):
    """
    A request of each kind that carries a value, by what it is called.
    """
    run = client.get("run")
    return {
        "start": client.start(quick(SECRET)),
        "start with a signal": client.start(waits("text"), id="other", signals=[("go", SECRET)]),
        "follow-up": client.start(waits("text").then(quick(SECRET))),
        "signal": run.signal("go", SECRET),
        "ask": run.ask("how", SECRET, timeout=1),
        "fork": run.fork(1, {1: SECRET}),
        "schedule": client.schedules.create("late", quick(SECRET), every=60),
        "cancel": run.cancel(f"because {SECRET}"),
        "cancel a batch": client.get_batch("batch").cancel(f"because {SECRET}"),
    }


async def test_who_has_no_codec_is_refused_what_would_stand_in_plain(tmp_db, reached):
    """
    Values always; reasons where no engine runs that encrypts them. What says nothing of a value needs no codec.
    """
    async with Engine(tmp_db, DEFINITIONS, codec=encrypting()) as engine:
        run = await engine.start(waits("text"), id="run")
        await reached(run, "waiting")
        async with Client(tmp_db) as client:
            with pytest.raises(UsageError, match="are encrypted"):
                await client.get("run").signal("go", SECRET)
            assert await client.get("run").pause()
    async with Client(tmp_db) as client:
        for asked in said_without_a_codec(client).values():
            with pytest.raises(UsageError, match="give it the codec"):
                await asked
        await client.get("run").signal("nothing")
        assert await client.get("run").cancel()
    async with Client(tmp_db, codec=encrypting()) as client:
        await client.get("run").signal("go", SECRET)
    assert plain_cells(tmp_db, SECRET) == set()


async def test_why_a_schedule_starts_nothing_is_concealed_and_revealed(tmp_db, clock, eventually):
    """
    What its function raised came from who knows where.
    """
    schedule = Schedule("ticks", tick, every=60)
    async with Engine(tmp_db, [quick], codec=encrypting(), schedules=[schedule], clock=clock) as engine:

        async def ticked():
            clock.advance(61)
            return (await engine.schedule("ticks").info()).last_error is not None

        await eventually(ticked)
        assert f"RuntimeError: tick {SECRET}" in (await engine.schedule("ticks").info()).last_error
    assert plain_cells(tmp_db, SECRET) == set()


@workflow(name="changes")
async def changed(text: str) -> Flow[str]:
    value: str = yield quick(text)  # not what was recorded
    yield Return(value)


async def test_the_report_of_a_blocked_run_is_concealed_and_revealed(tmp_db, reached):
    """
    Its row names the class of what blocks it, and nothing else.
    """
    async with Engine(tmp_db, DEFINITIONS, codec=encrypting()) as engine:
        run = await engine.start(changes(SECRET), id="run")
        await reached(run, "waiting")
    async with Engine(tmp_db, [changed, quick], codec=encrypting()) as engine:
        run = engine.get("run")
        await run.signal("go", "x")
        with pytest.raises(RunBlockedError, match="quick") as blocked:
            await run.result(20)
        assert blocked.value.reason == (await run.info()).reason
        assert blocked.value.reason in await run.why()
    with closing(sqlite3.connect(tmp_db)) as conn:
        ((reason,),) = conn.execute("SELECT reason FROM durable_runs WHERE run_id = 'run'")
    assert reason.startswith("[NondeterminismError, encrypted: ")


@pytest.mark.parametrize("hooks", [None, Zlib(), Chain(Zlib())], ids=["none", "zlib", "chain"])
def test_hooks_that_encrypt_nothing_leave_texts_as_they_are(hooks):
    """
    People read them in the file.
    """
    codec = Codec(hooks)
    assert codec.conceal("a text", "Brief") == "a text"
    assert codec.reveal("ValueError: [encrypted: aaaa]") == "ValueError: [encrypted: aaaa]"


@pytest.mark.parametrize("text", ["", "a", "[encrypted: eA==]", "\N{SNOWMAN} \x00 \ud800", "x" * 10_000])
def test_what_was_concealed_comes_back(text):
    """
    Alone, behind a brief word, and within another text.
    """
    codec = Codec(encrypting())
    assert codec.reveal(codec.conceal(text)) == text
    assert (
        codec.reveal(f"it was: {codec.conceal(text, 'Kind')}; and {codec.conceal(text)}")
        == f"it was: {text}; and {text}"
    )
    assert codec.reveal(codec.conceal_message(f"ValueError: {text}")) == f"ValueError: {text}"
    assert codec.conceal_message("ValueError") == "ValueError"


def test_hooks_that_fail_write_nothing_in_plain_and_nobody_hears_of_it():
    """
    What cannot be read stays as it is.
    """

    class Broken:
        def encode(self, data):
            raise OSError("no key")

        def decode(self, data):
            raise OSError("no key")

    codec = Codec(Broken())
    assert SECRET not in codec.conceal(SECRET)
    assert codec.reveal("[encrypted: eA==]") == "[encrypted: eA==]"
    with pytest.raises(EncodeError):
        codec.encode("x")
    assert Codec(encrypting()).reveal("[encrypted: eA==]") == "[encrypted: eA==]"


def test_a_digest_is_keyed_where_the_hooks_have_a_key_and_stays_when_a_new_one_is_put_first():
    """
    Who has not the key cannot try values; by another key it says nothing, and one of an older release is compared.
    """
    plain, keyed, rotated, other = (
        Codec(hooks) for hooks in (None, encrypting(), AesGcm(b"n" * 32, KEY), AesGcm(b"o" * 32))
    )
    digest = keyed.digest("4711")
    assert digest == rotated.digest("4711")
    assert digest.partition(".")[0] not in {plain.digest("4711"), other.digest("4711").partition(".")[0]}
    assert keyed.fits_digest("4711", digest)
    assert not keyed.fits_digest("4712", digest)
    assert keyed.fits_digest("4711", plain.digest("4711"))
    assert not keyed.fits_digest("4712", plain.digest("4711"))
    assert plain.fits_digest("4712", digest)
    assert other.fits_digest("4712", digest)


@pytest.mark.parametrize(
    "recorded, asked, equal",
    [
        ("pay:00.ab12", "pay:00.ab12", True),
        ("pay:00.ab12", "pay:01.ab12", False),
        ("pay:00.ab12", "pay:01.cd34", True),
        ("pay:00", "pay:01.cd34", True),
        ("pay:00", "pay:01", False),
        ("pay:00.ab12", "ship:00.cd34", False),
        ("a:b.c:00", "a:b.c:01", False),
        (None, "pay:00", False),
    ],
)
def test_calls_whose_digests_are_of_different_keys_count_as_equal(recorded, asked, equal):
    """
    A new key must not make a conflict of what is the same call.
    """
    assert may_be_equal(recorded, asked) is equal


async def test_a_key_is_joined_after_the_last_digest_key_was_left_out(tmp_db):
    """
    Other arguments are told apart as long as it is there.
    """
    async with Engine(tmp_db, [quick], codec=AesGcm(KEY)) as engine:
        first = await engine.start(quick("a"), key="k")
        await first.result()
    new = b"n" * 32
    async with Engine(tmp_db, [quick], codec=AesGcm(new, KEY)) as engine:
        assert (await engine.start(quick("a"), key="k")).id == first.id
        with pytest.raises(KeyConflictError):
            await engine.start(quick("b"), key="k")
    async with Engine(tmp_db, [quick], codec=AesGcm(new)) as engine:
        assert (await engine.start(quick("a"), key="k")).id == first.id

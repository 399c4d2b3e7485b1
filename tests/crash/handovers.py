"""
Stops the owner of one journal hundreds of times under the requests of three clients, and counts what these noticed.

    handovers.py [--stops N] [--rate PER_SECOND] [--minutes M] [--seed S]

Half of the stops are SIGKILL, at any moment or between a commit and its answers; half are SIGTERM, after which the
owner closes cleanly while jobs are running. Sometimes a standby waits for the file; sometimes nobody does, and clients
own it for a moment until the next engine opens it beside them. The clients ask for everything that a client can:
starts (by key and id, many, replacing, refused), batches and members, signals, cancels, pauses, retries, forks,
triggers, imports, results and lists.

What must hold: no request raises, or is answered with anything but what the first one must get; each is there, once.
Exits with 1 if not, if an owner ended by itself, or if there were fewer stops or requests than asked for.

Every process is forked from this one, which opens nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import select
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parent))
import killing

from durable import (
    Client,
    Engine,
    Flow,
    KeyConflictError,
    Return,
    RunFailedError,
    Schedule,
    job,
    read_histories,
    step,
    wait_for,
    workflow,
)

CLIENTS = 3
#: Seconds that an owner lives, at most; and for which the file is free after some of them.
LONGEST_LIFE = 0.8
LONGEST_GAP = 0.3
#: Where owners die that are not killed from outside (see `killing.py`), and how often they come there before, at most.
POINTS = ("after-commit", "before-dispatch")
MOST_PASSES = 40
#: Seconds in which a file must have been opened, and a request been answered.
PATIENCE = 60.0
#: Requests of one client that are not answered yet: beyond these it does not keep its rate.
MOST_OPEN = 200
#: Runs that are there to be imported.
EXPORTED = 600


@job
async def quick(tag: str) -> str:
    return tag


@job
async def slow(tag: str) -> str:
    await asyncio.sleep(random.random() / 2)
    return tag


@job
async def fails(tag: str) -> str:
    raise LookupError(tag)


@job
async def ticked() -> None: ...


@step
async def first() -> int:
    return 1


@workflow
async def source() -> Flow[int]:
    value: int = yield first()
    yield Return(value)


@workflow
async def waiting(tag: str) -> Flow[str]:
    value: str = yield wait_for("go")
    yield Return(value)


DEFINITIONS = (quick, slow, fails, ticked, source, waiting)
SCHEDULE = Schedule("daily", ticked(), every=86_400)


def make_engine(folder: Path, **options) -> Engine:
    # jobs that run at a hundred kills are no poison here
    return Engine(
        folder / "app.db",
        DEFINITIONS,
        schedules=[SCHEDULE],
        durability="process",
        grace=1.0,
        crash_limit=10**6,
        **options,
    )


# --- what clients ask for ----------------------------------------------------------------------------


def tagged(tag, **options):
    return {"labels": {"tag": tag}, **options}


async def start(client, tag):
    await client.start(slow(tag), **tagged(tag))


async def start_and_wait(client, tag):
    assert await client.run(quick(tag), **tagged(tag)) == tag


async def start_by_key(client, tag):
    await client.start(quick(tag), **tagged(tag, key=tag, on_conflict="reject"))


async def start_by_id(client, tag):
    assert (await client.start(quick(tag), **tagged(tag, id=tag))).id == tag


async def start_many(client, tag):
    assert len(await client.start_many([quick(tag).options(labels={"tag": tag})] * 3)) == 3


async def replace(client, tag):
    await client.start(waiting(tag), **tagged(tag, key=tag[0], on_conflict="replace"))


async def refused(client, tag):
    try:
        await client.start(quick(tag), **tagged(tag, key="taken", on_conflict="reject"))
    except KeyConflictError:
        return
    raise AssertionError("a taken key was given away")


async def make_batch(client, tag):
    async with client.batch(description=tag) as batch:
        batch.add(quick(tag).options(labels={"tag": tag}))
        batch.add(quick(tag).options(labels={"tag": tag}))


async def add(client, tag):
    await client.get_batch("open").add(quick(tag).options(labels={"tag": tag}))


async def send(client, tag):
    assert await client.get("inbox").signal("note", tag) is True


async def cancel(client, tag):
    run = await client.start(waiting(tag), **tagged(tag))
    assert await run.cancel() is True


async def pause(client, tag):
    run = await client.start(waiting(tag), **tagged(tag))
    assert await run.pause() is True
    assert await run.resume() is True
    assert await run.signal("go", tag) is True
    assert await run.result() == tag


async def retry(client, tag):
    run = await client.start(fails(tag), **tagged(tag))
    with contextlib.suppress(RunFailedError):
        await run.result()
    assert await run.retry() is True


async def fork(client, tag):
    assert await (await client.get("source").fork(0)).result() == 1


async def trigger(client, tag):
    await client.schedule("daily").trigger()


async def bring(client, tag, left=[]):  # noqa: B006 - a process reads the file once
    if not left:
        left += read_histories(Path(client.path).with_name("theirs.jsonl"))
        del left[: int(tag[0]) * EXPORTED // CLIENTS]
    found = await client.import_runs([left.pop(0)])
    assert (len(found.runs), found.present) == (1, [])


async def look(client, tag):
    assert (await client.get("inbox").info()).workflow == "waiting"
    assert [info async for info in client.runs(limit=3)]


#: What is asked for, and how many runs each leaves behind that bear its tag.
ASKED = {
    start: 1, start_and_wait: 1, start_by_key: 1, start_by_id: 1, start_many: 3, replace: 1, refused: 0, make_batch: 2,
    add: 1, send: 0, cancel: 1, pause: 1, retry: 1, fork: 0, trigger: 0, bring: 0, look: 0,
}  # fmt: skip
#: What is left by others, as `THERE` calls it, and whether it bears the tag.
ELSEWHERE = {
    "fork": ("source", False), "trigger": ("ticked", False), "bring": ("theirs", False), "make_batch": ("batch", True),
    "send": ("signal", True),
}  # fmt: skip


# --- processes -----------------------------------------------------------------------------------------


class Process:
    """A forked process: says when it is ready, and ends with 0 if all went well."""

    def __init__(self, folder: Path, work, *arguments) -> None:
        self._pipe, say = os.pipe()
        gc.freeze()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._pipe)
            code = 70
            try:
                os.dup2(os.open(folder / "errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
                structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
                asyncio.run(work(folder, lambda: os.write(say, b"r"), *arguments))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(say)

    def is_ready(self) -> bool:
        """Whether it says so within `PATIENCE`."""
        return bool(select.select([self._pipe], [], [], PATIENCE)[0]) and os.read(self._pipe, 1) == b"r"

    def ended(self, which: int | None = None, after: float = 0.0) -> int:
        """Its exit code (negative for a signal); it is sent one if it has not ended *after* so many seconds."""
        send_at = time.monotonic() + after
        while True:
            ended, status = os.waitpid(self.pid, 0 if which is None else os.WNOHANG)
            if ended:
                os.close(self._pipe)
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= send_at:
                os.kill(self.pid, which)
                which = None
            else:
                time.sleep(0.002)


def until_told() -> asyncio.Event:
    """Set at SIGTERM."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    return told


async def prepare(folder: Path, ready) -> None:
    """What clients find."""
    async with Engine(folder / "other.db", DEFINITIONS, durability="process") as other:
        runs = await asyncio.gather(*(other.start(quick("x"), id=f"theirs-{number}") for number in range(EXPORTED)))
        for run in runs:
            await run.result()
        await other.export([run.id for run in runs], folder / "theirs.jsonl")
    async with make_engine(folder) as engine:
        await engine.start(waiting("-"), id="inbox")
        await engine.start(waiting("-"), key="taken")
        await engine.run(source(), id="source")
        async with engine.batch(id="open") as batch:
            batch.add(waiting("-"))
    ready()


async def own(folder: Path, ready, standby: bool, dies_at: tuple[str, int] | None) -> None:
    """Have the file until told to stop, and close it; or die at a point of a commit."""
    told = until_told()
    async with make_engine(folder, standby=standby):
        if dies_at:
            killing.at(*dies_at)
        ready()
        await told.wait()


async def ask(folder: Path, ready, number: int, rate: float) -> None:
    """Ask for one thing after the other, *rate* times a second, until told to stop; then wait for the answers."""
    told, kinds, asked = until_told(), random.sample(list(ASKED), len(ASKED)), 0
    free = asyncio.Semaphore(MOST_OPEN)
    journal = Client(folder / "app.db", durability="process", timeout=PATIENCE)
    with (folder / f"ledger-{number}").open("a", buffering=1) as ledger:
        async with journal as client, asyncio.TaskGroup() as group:

            async def answered(kind, tag):
                found = ""
                try:
                    async with free, asyncio.timeout(PATIENCE):
                        await kind(client, tag)
                except Exception as error:
                    traceback.print_exc()
                    found = f"{type(error).__name__}: {error}"
                ledger.write(json.dumps([kind.__name__, tag, found]) + "\n")

            ready()
            began, parent = time.monotonic(), os.getppid()
            while not told.is_set() and os.getppid() == parent:  # which may be killed, as after a time limit
                group.create_task(answered(kinds[asked % len(kinds)], f"{number}-{asked}"))
                asked += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(told.wait(), began + asked / rate - time.monotonic())
            seconds = time.monotonic() - began
    (folder / f"asked-{number}").write_text(json.dumps([asked, seconds]))


async def finish(folder: Path, ready) -> None:
    """Let everything end that can."""
    async with make_engine(folder) as engine, asyncio.timeout(PATIENCE):
        for kind in (quick, slow):
            async for info in engine.runs(workflow=kind):
                await engine.get(info.run_id).result()
    ready()


# --- stopping owners -------------------------------------------------------------------------------------

BY_THEMSELVES = "owners that ended by themselves"


def stop_owners(folder: Path, stops: int, deadline: float, found: Counter) -> Process:
    """Stop one owner after the other, every second one cleanly; the one that is left."""

    def following(number: int, *, standby: bool) -> tuple[Process, tuple[str, int] | None]:
        dies = number % 2 == 0 and number < stops and random.random() < 0.7
        dies_at = (random.choice(POINTS), random.randint(1, MOST_PASSES)) if dies else None
        return Process(folder, own, standby, dies_at), dies_at

    owner, dies_at = following(0, standby=False)
    for number in range(stops):
        found[BY_THEMSELVES] += not owner.is_ready()
        if time.monotonic() > deadline:
            break
        after = following(number + 1, standby=True) if random.random() < 0.5 else None
        kind = signal.SIGTERM if number % 2 else signal.SIGKILL
        code = owner.ended(kind, PATIENCE if dies_at else random.random() * LONGEST_LIFE)
        found[BY_THEMSELVES] += code != (0 if kind == signal.SIGTERM else -kind)
        found["closed" if kind == signal.SIGTERM else "killed"] += 1
        if after is None:
            time.sleep(random.random() * LONGEST_GAP)
            after = following(number + 1, standby=False)
        owner, dies_at = after
    else:
        found[BY_THEMSELVES] += not owner.is_ready()
    return owner


# --- the judge ---------------------------------------------------------------------------------------------

FAULTS = ("errors seen by a client", "not answered", "lost", "doubled", BY_THEMSELVES)
#: What is there, by what it was asked for with.
THERE = """
SELECT 'run', labels ->> 'tag' FROM durable_runs WHERE labels ->> 'tag' NOTNULL
UNION ALL SELECT workflow, '' FROM durable_runs WHERE workflow IN ('source', 'ticked')
UNION ALL SELECT 'theirs', '' FROM durable_runs WHERE run_id LIKE 'theirs-%'
UNION ALL SELECT 'batch', description FROM durable_batches WHERE description <> ''
UNION ALL SELECT 'signal', value ->> '$' FROM durable_inbox WHERE name = 'note'
UNION ALL SELECT 'signal', value ->> '$' FROM history WHERE event = 'SignalReceived' AND run_id = 'inbox'
"""


def judge(folder: Path, found: Counter) -> None:
    """Compare what was asked for with what is there."""
    wanted = Counter({("source", ""): 1})
    for number in range(CLIENTS):
        answered = [json.loads(line) for line in (folder / f"ledger-{number}").read_text().splitlines()]
        for kind, tag, error in answered:
            wanted["run", tag] += ASKED[globals()[kind]]
            if kind in ELSEWHERE:
                name, tagged = ELSEWHERE[kind]
                wanted[name, tag if tagged else ""] += 1
            if error:
                found["errors seen by a client"] += 1
                print(f"{kind} {tag}: {error[:300]}")
        asked, seconds = json.loads((folder / f"asked-{number}").read_text())
        found["requests"] += asked
        found["not answered"] += asked - len(answered)
        found["a second"] += round(asked / seconds)
    with contextlib.closing(sqlite3.connect(folder / "app.db")) as conn:
        there = Counter(conn.execute(THERE).fetchall())
    found["lost"], found["doubled"] = (wanted - there).total(), (there - wanted).total()
    for what in {*(wanted - there), *(there - wanted)}:
        print(f"{what}: {there[what]} found, {wanted[what]} asked for")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second, of all clients")
    parser.add_argument("--minutes", type=float, default=10.0, help="at most")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    args = parser.parse_args()
    random.seed(args.seed)
    found: Counter = Counter()
    with tempfile.TemporaryDirectory(prefix="durable-handovers-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        codes = [Process(folder, prepare).ended()]
        clients = [Process(folder, ask, number, args.rate / CLIENTS) for number in range(CLIENTS)]
        began = time.monotonic()
        owner = stop_owners(folder, args.stops, began + 60 * args.minutes, found)
        seconds = time.monotonic() - began
        codes += [client.ended(signal.SIGTERM) for client in clients]
        codes += [owner.ended(signal.SIGTERM), Process(folder, finish).ended()]
        if not any(codes):
            judge(folder, found)
        if any(codes) or any(found[fault] for fault in FAULTS):
            print((folder / "errors").read_text()[-5000:])
            print(f"exit codes: {codes}")
    print(f"seed {args.seed}, {seconds:.0f} s")
    for name in ("killed", "closed", "requests", "a second", *FAULTS):
        print(f"  {name:35} {found[name]:,}")
    enough = found["killed"] + found["closed"] == args.stops and found["a second"] >= 0.9 * args.rate
    if not enough:
        print("fewer stops or requests than asked for")
    return 0 if enough and not any(codes) and not any(found[fault] for fault in FAULTS) else 1


if __name__ == "__main__":
    sys.exit(main())

"""
Records the journals of this folder. Run by hand: ``python tests/histories/make.py [NAME ...]``.

Only those that are absent are made: a golden journal stays as the release that recorded it left it.
Paths of the machine that records are taken out of tracebacks.
"""

import asyncio
import contextlib
import logging
import sys
import tempfile
from pathlib import Path

import structlog

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
sys.path.insert(0, str(FOLDER))

import workflows as w  # noqa: E402 - found by the line above

from durable import Engine, RunCancelledError, RunFailedError  # noqa: E402
from durable._core.journal.events import SignalAwaited  # noqa: E402 - as above

DEFINITIONS = [
    w.ride,
    w.notify_drivers,
    w.write_audit,
    w.expense,
    w.resize,
    w.gallery,
    w.retouch,
    w.album,
    w.booking,
    w.changed,
    w.countdown,
    w.crawler,
]


async def reached(run, status):
    """Return once *run* has *status*."""
    while (await run.info()).status != status:
        await asyncio.sleep(0.01)


async def ride(engine):
    await engine.run(w.ride(42, "Main St 1"), id="ride-42", key="booking-42", labels={"city": "Bern"})
    return ["ride-42"]


async def approval(engine):
    ada = await engine.start(w.expense("Ada", 120, 60.0), id="expense-ada")
    bob = await engine.start(w.expense("Bob", 9_000, 0.1), id="expense-bob")
    cyd = await engine.start(w.expense("Cyd", 30, 0.1), id="expense-cyd")
    await ada.signal("decision", w.Decision(approved=True, by="Mia"), dedup="click-1")
    while sum(isinstance(each.event, SignalAwaited) for each in await bob.history()) < 2:  # it was reminded
        await asyncio.sleep(0.005)
    await bob.signal("decision", w.Decision(approved=False, by="Mia"))
    assert [await run.result() for run in (ada, bob, cyd)] == ["approved by Mia", "rejected by Mia", "timed out"]
    return ["expense-ada", "expense-bob", "expense-cyd"]


async def gallery(engine):
    w.broken.add("c.png")
    run = await engine.start(w.gallery(["a.png", "b.png", "c.png", "d.png", "e.png"]), id="gallery-1")
    with contextlib.suppress(RunFailedError):
        await run.result()
    w.broken.clear()
    await run.retry()
    assert len(await run.result()) == 5
    w.broken.add("x.png")
    failed = await engine.start(w.gallery(["x.png"]), id="gallery-2")
    with contextlib.suppress(RunFailedError):
        await failed.result()
    return ["gallery-1", "gallery-2"]


async def booking(engine):
    run = await engine.start(w.booking(), id="booking-1")
    await reached(run, "waiting")
    await run.cancel("changed my mind")
    with contextlib.suppress(RunCancelledError):
        await run.result()
    return ["booking-1"]


async def patch(engine):
    await engine.run(w.changed(5), id="changed-1")
    return ["changed-1"]


async def countdown(engine):
    await engine.run(w.countdown(2), id="countdown-1")
    return ["countdown-1"]


async def waiting(engine):
    """Runs that had not ended: one between two attempts, with its notes; one with a signal that nobody has read."""
    crawling = await engine.start(w.crawler(3), id="crawler-1")
    await reached(crawling, "waiting")
    paused = await engine.start(w.expense("Dan", 5, 60.0), id="expense-dan")
    await reached(paused, "waiting")
    await paused.pause()
    await paused.signal("decision", w.Decision(approved=True, by="Mia"), dedup="click-9")
    return ["crawler-1", "expense-dan"]


async def album(engine):
    """Children that wait, as many more to come, of a release that set their numbers off with a slash."""
    run = await engine.start(w.album(["a.png", "b.png", "c.png", "d.png"]), id="album-1")
    await reached(run, "waiting")
    for child in await run.children():
        await reached(engine.get(child.id), "waiting")
    return ["album-1"]


JOURNALS = [ride, approval, gallery, booking, patch, countdown, waiting, album]


async def make(record, target):
    """Record one journal."""
    with tempfile.TemporaryDirectory() as folder:
        async with Engine(Path(folder, "golden.db"), DEFINITIONS, grace=0.1) as engine:
            runs = await record(engine)
            await engine.export(runs, target, tree=True)
    text = target.read_text(encoding="utf-8")
    for path, name in ((f"{ROOT}/", ""), (f"{sys.base_prefix}/", "python/"), (f"{sys.prefix}/", "venv/")):
        text = text.replace(path, name)
    target.write_text(text, encoding="utf-8")


def main(names):
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for record in JOURNALS:
        target = FOLDER / f"{record.__name__}.jsonl"
        if (not names or record.__name__ in names) and not target.exists():
            asyncio.run(make(record, target))
            sys.stdout.write(f"{target.name}: {len(target.read_text().splitlines())} lines\n")


if __name__ == "__main__":
    main(sys.argv[1:])

"""
Golden journals: what earlier releases recorded is read, imported, exported again and replayed by this one.
"""

import json
from pathlib import Path

import pytest

from durable import Engine, Replay, read_histories, replay
from durable._core.journal.events import ChildStarted, PatchMarked, RunCancelled, RunContinued, RunRetried
from durable._core.recorded.export_format import export_lines
from tests.histories import workflows

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parent
JOURNALS = sorted(FOLDER.glob("*.jsonl"))
ENDS = ("succeeded", "failed", "cancelled")


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()[1:]


@pytest.fixture
async def engine(tmp_path):
    """
    An engine that knows the workflows of this folder.
    """
    async with Engine(tmp_path / "golden.db", [workflows], durability="process", grace=0.2) as opened:
        yield opened


def test_there_are_journals_of_what_matters():
    """
    Races, retries, a retry by a person, clean-up, changes, chains, runs that had not ended.
    """
    found = {path.stem: read_histories(path) for path in JOURNALS}
    events = {name: [event for each in runs for event in each.events] for name, runs in found.items()}
    kinds = {name: {type(event) for event in each} for name, each in events.items()}
    assert RunRetried in kinds["gallery"]
    assert RunCancelled in kinds["booking"]
    assert PatchMarked in kinds["patch"]
    assert RunContinued in kinds["countdown"]
    assert ChildStarted in kinds["ride"]
    assert {each.run.status for each in found["approval"]} == {"succeeded"}
    crawler, dan = found["waiting"]
    assert [note.name for note in crawler.notes] == ["cursor", "memo:page-0:1", "memo:page-1:1"]
    assert [type(event).__name__ for event in dan.pending] == ["SignalReceived"]


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
def test_a_golden_journal_is_written_as_it_was(path):
    """
    Read, and written again: the same lines. The format is what it was.
    """
    header = json.loads(path.read_bytes().splitlines()[0])
    assert header["format"] == 1
    assert [line for each in read_histories(path) for line in export_lines(each)] == lines(path)


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
async def test_a_golden_journal_is_imported_and_exported_again(path, clock, tmp_path):
    """
    Runs that had ended come out line for line; of the others, all but how they stand here: paused.
    """
    histories = read_histories(path)
    clock.advance(histories[0].run.created_at - clock.now())  # no timer has come due since
    async with Engine(tmp_path / "golden.db", [workflows], durability="process", clock=clock) as engine:
        await engine.import_runs(path)
        await engine.export([each.run.run_id for each in histories], tmp_path / "again.jsonl")
    if all(each.run.status in ENDS for each in histories):
        assert lines(tmp_path / "again.jsonl") == lines(path)
    for mine, theirs in zip(read_histories(tmp_path / "again.jsonl"), histories, strict=True):
        assert (mine.events, mine.pending, mine.notes, mine.waits) == (
            theirs.events,
            theirs.pending,
            theirs.notes,
            theirs.waits,
        )


@pytest.mark.parametrize(
    "history",
    [each for path in JOURNALS for each in read_histories(path) if each.run.kind == "workflow"],
    ids=lambda each: each.run.run_id,
)
def test_a_golden_journal_replays(history):
    """
    Today's engine takes the recorded code through the recorded history, command by command.
    """
    replayed = replay(history, workflows)
    assert isinstance(replayed.verify(), Replay)
    assert replayed.verdict == "same"
    assert replayed.changed_arguments == []
    assert replayed.ended == (history.run.status in ENDS and history.run.successor is None)
    assert (replayed.raised is not None) == (history.run.status in ("failed", "cancelled"))


async def test_runs_of_golden_journals_go_on(tmp_path, clock):
    """
    Those that had not ended: from their notes, once the hour before the next attempt is over.
    """
    clock.advance(read_histories(FOLDER / "waiting.jsonl")[0].waits[0].fire_at - clock.now() + 1)
    async with Engine(tmp_path / "golden.db", [workflows], durability="process", clock=clock) as engine:
        await go_on(engine)


async def go_on(engine):
    await engine.import_runs(FOLDER / "waiting.jsonl")
    dan = engine.get("expense-dan")
    assert not await dan.signal("decision", workflows.Decision(approved=False, by="Eve"), dedup="click-9")
    await dan.resume()
    assert await dan.result(timeout=5) == "approved by Mia"
    crawler = engine.get("crawler-1")
    await crawler.signal("publish", "now")
    await crawler.resume()
    assert await crawler.result(timeout=5) == 6


async def test_failed_runs_of_golden_journals_can_be_retried(engine):
    """
    With the job that failed, which is a run of its own.
    """
    await engine.import_runs(FOLDER / "gallery.jsonl")
    run = engine.get("gallery-2")
    assert await run.retry()
    assert await run.result(timeout=5) == ["x.png@2x"]


def test_no_journal_tells_whose_machine_recorded_it():
    """
    Paths in tracebacks begin in this repository.
    """
    for path in JOURNALS:
        for line in lines(path):
            assert 'File \\"/' not in line, path.name
            assert json.loads(line)


async def test_children_in_line_keep_the_ids_that_they_were_promised(engine):
    """
    A for_each that an earlier release began is finished by this one: all children have ids as they had them then, and
    no item is lost, taken twice or waited for in vain. The children of new runs have ids that are fit for URLs.
    """
    await engine.import_runs(FOLDER / "album.jsonl")
    album = engine.get("album-1")
    ids = [f"album-1/0.{number}" for number in range(4)]
    for run_id in ("album-1", *ids[:2]):
        await engine.get(run_id).resume()
    for number, run_id in enumerate(ids):
        await engine.get(run_id).signal("done", f"{number}")
        await engine.get(run_id).result(timeout=5)
    assert await album.result(timeout=5) == ["a.png, 0", "b.png, 1", "c.png, 2", "d.png, 3"]
    assert sorted(child.id for child in await album.children()) == ids
    assert {event.run_id for event in read_events(await album.history(), ChildStarted)} == set(ids)

    new = await engine.start(workflows.album(["e.png"]), id="album-2")
    async for info in new.watch():
        if info.status == "waiting":
            break
    await engine.get("album-2~.0.0").signal("done", "new")
    assert await new.result(timeout=5) == ["e.png, new"]


def read_events(history, kind):
    return [each.event for each in history if isinstance(each.event, kind)]

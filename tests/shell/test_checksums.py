"""
Events are chained by checksums: by today's, and where an older release wrote them by that release's.
"""

import sqlite3
from contextlib import closing
from zlib import crc32

import pytest

from durable import Flow, Return, step, wait_for, workflow
from durable._core.journal.columns import from_row
from durable._core.journal.events import RunFailed, RunStarted, StepStarted, StepSucceeded
from durable._shell.rows.checksums import checksum, is_chained, older_checksum
from durable._shell.rows.rows import LARGE_BYTES, Large, RunState
from durable.errors import JournalCorruptError


@step
async def echo(text: str) -> str:
    return text


@workflow
async def twice(text: str) -> Flow[str]:
    first: str = yield echo(text)
    yield wait_for("go")
    yield Return(first + (yield echo(text)))


#: before, kind, position, at, body, value
EVENTS = {
    "a step's start": (841_420_438, 10, "0", 1796058125.991879, '["ok",1,"a.py:1",""]', None),
    "its end": (-1, 11, "0.1", 1796058125.991879, None, '{"ok":true}'),
    "bytes of a codec": (7, 11, "0", 1.5, None, b"\xff\x00"),
    "a first event": (0, 1, None, 2.0, '["w",1,"id"]', "[[],{}]"),
}


@pytest.mark.parametrize("columns", EVENTS.values(), ids=EVENTS)
@pytest.mark.parametrize("sum_of", [checksum, older_checksum])
def test_a_checksum_fits_its_event_and_none_that_differs_in_one_column(sum_of, columns):
    """
    What is changed may have become of another type, too, as it does where a row's header is damaged.
    """
    recorded = sum_of(*columns)
    assert is_chained(recorded, *columns)
    assert not is_chained(recorded + 1, *columns)
    assert not is_chained(None, *columns)
    before, kind, position, at, body, value = columns
    changed = [
        *((each, kind, position, at, body, value) for each in (before + 1, before ^ 1 << 31)),
        *((before, each, position, at, body, value) for each in (kind + 1, kind + 2**40, -kind, None, "x")),
        *((before, kind, each, at, body, value) for each in ("7", "", b"0", 0.5)),
        *((before, kind, position, each, body, value) for each in (at + 0.000001, -at, None, "1796058125.9", b"1.5")),
        *((before, kind, position, at, each, value) for each in ("[]", "", b"[]")),
        *((before, kind, position, at, body, each) for each in ("x", b"x", 17, 0.5)),
    ]
    for event in changed:
        assert not is_chained(recorded, *event), event


def test_todays_checksum_tells_types_of_a_value_apart():
    """
    Nothing and an empty text, a text and bytes of the same content: one bit of a row's header is between them.
    """
    sums = {checksum(0, 11, "0", 1.0, None, value) for value in (None, "", b"", "None", "17", b"17")}
    assert len(sums) == 6


def test_checksums_of_both_ages_are_told_apart_by_their_sign():
    """
    So that no event of today is taken for one of an older release, nor the other way round.
    """
    assert all(checksum(*columns) < 0 <= older_checksum(*columns) for columns in EVENTS.values())


def test_rows_are_chained_by_the_checksum_that_readers_compute():
    """
    A run's rows have that of each kind of value, though they are numbered and summed by a loop of their own.
    """
    state = RunState(7, "a", "w", "q", seq=1, chain=-5)
    values = (None, "", "17", "é", "x" * (LARGE_BYTES - 1), "x" * LARGE_BYTES, b"\xff", b"x" * LARGE_BYTES)
    events = [
        RunStarted("w", 1, "a", "[[],{}]", 1.5),
        StepStarted("0.1", "ok", 1, "a.py:1", "0123456789abcdef", 2.5),
        *(StepSucceeded("0.1", value, 3.5) for value in values),
        RunFailed(["0.1"], '{"type":"E"}', 4.5),
    ]
    rows = state.append(events)
    chain = -5
    for seq, (event, row) in enumerate(zip(events, rows, strict=True), 2):
        assert row[:3] == (7, seq, event.kind)
        empty_as_none = [None if each != each else each for each in row[3:]]  # noqa: PLR0124 - a NaN
        position, at, body, value, recorded = empty_as_none
        text = value.value if isinstance(value, Large) else value
        assert isinstance(value, Large) is (event.value is not None and len(event.value) >= LARGE_BYTES)
        assert recorded == checksum(chain, event.kind, position, at, body, text)
        assert from_row(event.kind, position, body, text, at) == event
        chain = recorded
    assert (state.seq, state.chain) == (len(events) + 1, chain)


def as_older_release(path):
    """
    Give the events of a file the checksums that a release before schema 4 would have given them.
    """
    with closing(sqlite3.connect(path)) as conn:
        chains = {}
        for number, run, kind, position, at, body, value in conn.execute(
            "SELECT id, run, kind, position, at, body, value FROM durable_events ORDER BY run, seq"
        ).fetchall():
            text = f"{kind}|{position}|{at!r}|{body}|{value or ''}"
            chains[run] = crc32(text.encode(), chains.get(run, 0))
            conn.execute("UPDATE durable_events SET checksum = ? WHERE id = ?", (chains[run], number))
        conn.commit()


async def test_a_run_of_an_older_release_is_read_and_continues(engines, eventually):
    """
    Its events keep their checksums, what follows is chained to them; what is damaged is found on either side.
    """
    engine = await engines.file(twice)
    run = await engine.start(twice("a"), id="a")

    async def waits():
        return await run.status() == "waiting"

    await eventually(waits)
    await engine.aclose()
    as_older_release(engines.path)
    engine = await engines.file(twice)
    run = engine.get("a")
    events = [event.kind for event in await run.history()]
    await run.signal("go")
    assert await run.result(5) == "aa"
    assert [event.kind for event in await run.history()][: len(events)] == events
    info = await run.info()
    assert (info.arguments.args, info.result) == (("a",), "aa")
    with closing(sqlite3.connect(engines.path)) as conn:
        signs = [recorded < 0 for (recorded,) in conn.execute("SELECT checksum FROM durable_events ORDER BY seq")]
        assert signs == sorted(signs)
        assert signs.index(True) == len(events)
        for seq in (3, len(events) + 1, len(signs)):
            conn.execute("UPDATE durable_events SET at = at + 1 WHERE seq = ?", (seq,))
            conn.commit()
            with pytest.raises(JournalCorruptError, match=str(seq)):
                await run.history()
            conn.execute("UPDATE durable_events SET at = at - 1 WHERE seq = ?", (seq,))
            conn.commit()

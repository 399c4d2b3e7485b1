"""
Runs as lines of text: what was written is read back equal, and whatever else comes is refused by its line.
"""

import base64
import contextlib
import json
import math
import re
from collections.abc import Mapping

import pytest
from attrs import evolve
from attrs import fields as attrs_fields
from hypothesis import given
from hypothesis import strategies as st

from durable._core.codec.codec import Codec, Payload
from durable._core.codec.hints import class_hints
from durable._core.codec.json_text import dumps
from durable._core.codec.records import Instant, Seconds
from durable._core.journal.events import (
    EVENT_CLASSES,
    AttributesSet,
    RunCancelled,
    RunContinued,
    RunFailed,
    RunRetried,
    RunStarted,
    RunSucceeded,
    SignalReceived,
    SlotAwaited,
    StepFailed,
    StepStarted,
    StepSucceeded,
)
from durable._core.recorded.export_fields import LINES, MAX_NESTING, ParentEnd
from durable._core.recorded.export_format import (
    ExportedFeed,
    ExportedWait,
    FeedItem,
    Header,
    RunFacts,
    RunHistory,
    StepNote,
    export_lines,
    header_line,
)
from durable._core.recorded.export_reader import read_export
from durable._core.recorded.export_values import MAX_LINE_BYTES
from durable._core.recorded.redaction import redacted
from durable.errors import DecodeError, ExportFormatError

HEADER = Header("1.2", 2, "2026-01-31T12:00:00+00:00")
STARTED = RunStarted("ride", 1, "r-1", "[[],{}]", 1.5)
FACTS = RunFacts(run_id="r-1", workflow="ride", version=1, sort="workflow", status="running", created_at=1.5)


def written(*histories, header=HEADER):
    return [header_line(header), *(line for each in histories for line in export_lines(each))]


def read(lines):
    return list(read_export([f"{line}\n".encode() for line in lines], "runs.jsonl"))


def refused(lines, number):
    """
    Why *lines* (texts, or bytes as they are) are refused, which must be for line *number*.
    """
    raw = [line if isinstance(line, bytes) else f"{line}\n".encode() for line in lines]
    with pytest.raises(ExportFormatError) as error:
        list(read_export(raw, "runs.jsonl"))
    assert (error.value.path, error.value.line) == ("runs.jsonl", number)
    assert str(error.value).startswith(f"runs.jsonl, line {number}: ")
    return error.value.reason


def line(plain):
    return json.dumps(plain)


# --- any history --------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
instants = st.floats(0, 4e9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
payloads = (
    json_values.map(dumps)
    | st.binary(max_size=20)
    | st.sampled_from(["", " 1", '{"a":1,"a":2}', "NaN", "1e999", "[" * 500 + "]" * 500, "\n", "nul"])
)
OF = {
    str: text,
    int: st.integers(0, 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    Instant: instants,
    Instant | None: st.none() | instants,
    Seconds | None: st.none() | instants,
    list[str]: st.lists(text, max_size=3),
    Seconds | None: st.none() | st.floats(0, 4e9),
    str | None: st.none() | text,
    float | None: st.none() | st.floats(allow_nan=False, allow_infinity=False),
    int | None: st.none() | st.integers(1, 2**53),
    int | float | None: st.none() | st.integers(0, 2**53) | st.floats(0, 1),
    tuple[str, ...] | None: st.none() | st.lists(text, max_size=3).map(tuple),
    Payload | None: st.none() | payloads,
    Mapping[str, str]: st.dictionaries(text, text, max_size=3),
    Mapping[str, str] | None: st.none() | st.dictionaries(text, text, max_size=3),
    ParentEnd | None: st.sampled_from([None, "cancel", "abandon"]),
    Mapping[str, int] | None: st.none() | st.dictionaries(text, st.integers(1, 2**53), max_size=3),
}


def made(cls, **given_fields):
    """
    Any object of *cls*.
    """
    hints = class_hints(cls)
    strategies = {each.name: OF[hints[each.name]] for each in attrs_fields(cls) if each.name not in given_fields}
    return st.builds(cls, **strategies, **given_fields)


ENDS = {RunSucceeded: "succeeded", RunFailed: "failed", RunCancelled: "cancelled", RunContinued: "succeeded"}
some_events = st.lists(
    st.one_of([made(cls) for cls in EVENT_CLASSES.values() if cls not in {RunStarted, RunRetried, *ENDS}]), max_size=8
)
waits = made(
    ExportedWait,
    kind=st.sampled_from(["timer", "signal", "child", "deadline"]),
    wake_on=st.sampled_from(["any", "all", "failure"]),
)
feeds = made(
    ExportedFeed,
    size=st.integers(1, 1000),
    wake_on=st.just("all"),
    template=json_values.map(dumps) | st.just("no json"),
    items=st.lists(made(FeedItem), max_size=3).map(tuple),
)


@st.composite
def histories(draw):
    events = [draw(made(RunStarted)), *draw(some_events)]
    end = draw(st.sampled_from([None, *ENDS]))
    if end is not None:
        events.append(draw(made(end)))
    pending = draw(some_events)
    facts = made(
        RunFacts,
        run_id=text.filter(bool),
        sort=st.sampled_from(["workflow", "job"]),
        status=st.just(ENDS[end] if end else "waiting"),
        successor=text.map(lambda each: f"{each}~") if end is RunContinued else st.none(),
        ended_at=st.none() if end is None else instants,
        retry=st.none()
        | st.just(
            '{"attempts":3,"delay":1.0,"factor":2.0,"max_delay":60.0,"jitter":0.1,"max_elapsed":null,"on":["E"]}'
        ),
        follow_ups=st.none() | json_values.map(lambda each: dumps([each])),
    ).filter(lambda facts: facts.successor != facts.run_id)
    return RunHistory(
        draw(facts),
        events,
        pending,
        draw(st.lists(made(StepNote), max_size=2)),
        draw(st.lists(waits, max_size=3)),
        draw(st.lists(feeds, max_size=2, unique_by=lambda feed: feed.position)),
        draw(st.lists(text, max_size=2)),
        {index: "3" for index in range(len(pending)) if draw(st.booleans())},
    )


@given(st.lists(histories(), max_size=3, unique_by=lambda each: each.run.run_id))
def test_what_was_written_is_read_back_equal(runs):
    """
    Histories and lines alike, whatever stands in them.
    """
    lines = written(*runs, header=evolve(HEADER, runs=len(runs)))
    assert not any("\n" in line for line in lines)
    again = read(lines)
    assert again == runs
    assert written(*again, header=evolve(HEADER, runs=len(runs))) == lines


@given(st.data())
def test_a_damaged_file_is_refused_or_read_but_raises_nothing_else(data):
    """
    Bytes changed, cut out or doubled anywhere.
    """
    whole = "".join(f"{line}\n" for line in written(data.draw(histories()))).encode()
    at = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, 20))
    damaged = whole[:at] + data.draw(st.binary(max_size=6)) + whole[at + length :]
    lines = damaged.splitlines(keepends=True)
    with contextlib.suppress(ExportFormatError):
        assert all(isinstance(each, RunHistory) for each in read_export(lines, "x"))


RECORDS = [*EVENT_CLASSES.values(), Header, RunFacts, StepNote, ExportedWait, ExportedFeed, FeedItem]


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_no_field_of_a_record_takes_anything(cls):
    """
    An annotation that cannot be resolved would mean that nothing is checked: a set is refused everywhere.
    """
    hints = class_hints(cls)
    for each in attrs_fields(cls):
        with pytest.raises(DecodeError):
            LINES.from_plain({1}, hints[each.name])


# --- what lines look like -------------------------------------------------------------------------------


def test_a_line_is_readable():
    """
    Names of classes and fields, times as they are, values as the JSON that they are.
    """
    events = [STARTED, StepStarted("0", "charge", 1, "ride.py:7", "abc", 123.5), StepSucceeded("0", '{"id":7}', 124.0)]
    lines = written(RunHistory(evolve(FACTS, labels={"a": "b"}, key="k"), events))
    assert [json.loads(line) for line in lines[1:]] == [
        {
            "run": {
                "run_id": "r-1",
                "workflow": "ride",
                "version": 1,
                "sort": "workflow",
                "status": "running",
                "created_at": 1.5,
                "queue": "default",
                "priority": 0,
                "key": "k",
                "key_live": False,
                "labels": {"a": "b"},
                "lines": {"events": 3},
            }
        },
        {
            "seq": 1,
            "event": "RunStarted",
            "at": 1.5,
            "fields": {"workflow": "ride", "version": 1, "seed": "r-1"},
            "value": [[], {}],
        },
        {
            "seq": 2,
            "event": "StepStarted",
            "position": "0",
            "at": 123.5,
            "fields": {"name": "charge", "attempt": 1, "site": "ride.py:7", "digest": "abc"},
        },
        {"seq": 3, "event": "StepSucceeded", "position": "0", "at": 124.0, "value": {"id": 7}},
    ]


def test_bytes_of_codec_hooks_are_base64_and_odd_text_is_text():
    """
    What JSON would not give back letter for letter stands there as a string.
    """
    events = [STARTED, AttributesSet(b"\x00\xff", 2.0), AttributesSet(" 1", 2.0)]
    lines = written(RunHistory(FACTS, events))
    assert json.loads(lines[3])["bytes"] == base64.b64encode(b"\x00\xff").decode()
    assert json.loads(lines[4])["text"] == " 1"


def test_unknown_keys_are_passed_over_and_absent_fields_take_their_defaults():
    """
    So that releases can read each other's files.
    """
    facts = {"run_id": "r-1", "workflow": "w", "version": 1, "sort": "job", "status": "failed", "created_at": 1}
    facts["ended_at"] = 2
    lines = [
        header_line(HEADER)[:-1] + ',"by":"a newer release"}',
        line({"run": {**facts, "mood": "good", "lines": {"events": 2, "moods": 3}}}),
        '{"seq":1,"event":"RunStarted","at":1,"fields":{"workflow":"ride","version":1,"seed":"","new":[]},"more":1}',
        "",
        '{"seq":2,"event":"RunFailed","at":2,"fields":{"positions":[]},"value":null}',
    ]
    (found,) = read(lines)
    assert found.events == [RunStarted("ride", 1, "", None, 1.0), RunFailed([], "null", 2.0)]
    assert (found.run.queue, found.run.priority) == ("default", 0)


# --- hostile ------------------------------------------------------------------------------------------------


GOOD = [STARTED, StepStarted("0", "charge", 1, "ride.py:7", "abc", 2.0)]


def good():
    return written(RunHistory(FACTS, GOOD))


def with_event(**changes):
    """
    A file whose third event is StepFailed, changed.
    """
    plain = {"seq": 3, "event": "StepFailed", "position": "0", "at": 3.0, "fields": {"attempt": 1}, **changes}
    facts = json.loads(good()[1])
    del facts["run"]["lines"]
    return [good()[0], line(facts), *good()[2:], line({name: each for name, each in plain.items() if each != "gone"})]


def test_the_event_that_is_changed_below_is_read_as_it_stands():
    """
    Otherwise the refusals would prove nothing.
    """
    (found,) = read(with_event())
    assert found.events[2] == StepFailed("0", 1, None, 3.0)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"seq": 4}, "seq: expected 3 of run 'r-1', found 4"),
        ({"seq": True}, "seq: expected 3"),
        ({"seq": 10**400}, "seq: expected 3"),
        ({"event": "StepExploded"}, "expected the name of an event of this release, found 'StepExploded'"),
        ({"event": ["StepFailed"]}, "expected the name of an event"),
        ({"event": "__init__"}, "expected the name of an event"),
        ({"event": "RunStarted", "fields": {"workflow": "", "version": 1, "seed": ""}}, "is the first event alone"),
        ({"position": 3}, "StepFailed.position: expected str, found int 3"),
        ({"position": "gone"}, "StepFailed.position: expected str, found null"),
        ({"position": "\ud800"}, "half a character"),
        ({"at": "gone"}, "StepFailed.at: expected float, found null"),
        ({"at": "now"}, "StepFailed.at: expected float, found str 'now'"),
        ({"at": True}, "StepFailed.at: expected float, found bool True"),
        ({"at": 10**400}, "StepFailed.at: expected float, the number is out of range"),
        ({"at": 1e300}, "StepFailed.at: expected epoch seconds of a year before 9999, found float 1e+300"),
        ({"fields": {}}, "StepFailed.attempt: expected int, found none, and it has no default"),
        ({"fields": {"attempt": 1.0}}, "StepFailed.attempt: expected int, found float 1.0"),
        ({"fields": {"attempt": True}}, "StepFailed.attempt: expected int, found bool True"),
        ({"fields": {"attempt": 2**63}}, "StepFailed.attempt: expected int of 64 bits, found int 9223372036854775808"),
        ({"fields": [1]}, "StepFailed.fields: expected an object, found list"),
        ({"bytes": "?"}, "StepFailed.value.bytes: expected base64, "),
        ({"bytes": 7}, "StepFailed.value.bytes: expected str, found int 7"),
        ({"text": 7}, "StepFailed.value.text: expected str, found int 7"),
        ({"value": {"a": ["\udfff"]}}, "half a character"),
        (
            {"event": "StepInterrupted", "fields": {"attempt": 1, "crashed": 1}},
            "crashed: expected bool, found int 1",
        ),
        ({"event": "RunFailed", "fields": {"positions": [1]}}, "RunFailed.positions[0]: expected str, found int 1"),
    ],
)
def test_an_event_with_something_wrong_is_refused(changes, reason):
    """
    The line, what was found, what was expected.
    """
    assert reason in refused(with_event(**changes), 5)


def nested(depth):
    return f'{{"seq":2,"event":"AttributesSet","at":2.0,"value":{"[" * depth}{"]" * depth}}}'


@pytest.mark.parametrize(
    "last, reason",
    [
        ('{"seq":2', "expected a JSON object, found '{\"seq\":2'"),
        ("[]", "the line: expected an object, found list"),
        ("7", "the line: expected an object, found int 7"),
        ("{}", "found an empty object: of a newer release?"),
        ('{"mood":1}', "expected an event (with seq), run, pending, note, wait, feed, item, dedup; found 'mood'"),
        ("9" * 5_000, "expected a JSON object"),
        (f'{{"seq":{"9" * 5_000}}}', "expected a JSON object"),
        ('{"seq":NaN}', "NaN is not JSON"),
        (b"\xff\xfe\n", "expected text in UTF-8"),
        (b"\x1f\x8b\x08\x00\n", "expected text in UTF-8"),
        (b'{"seq": 2, "event": "' + b"x" * MAX_LINE_BYTES, "the line has more than 67,108,864 bytes"),
        (nested(MAX_NESTING + 10), f"values nest deeper than {MAX_NESTING}"),
        (nested(100_000), f"values nest deeper than {MAX_NESTING}"),
        (
            nested(3).replace("[]", "1e999"),
            "AttributesSet.value: expected JSON, Out of range float",
        ),
        ('{"pending":[]}', "pending: expected an object, found list"),
        (
            '{"pending":{"event":"SignalReceived","at":1,"fields":{"name":"x"},"owes":1}}',
            "owes: expected str",
        ),
        ('{"note":{"position":"0","at":1}}', "Note.name: expected str, found none, and it has no default"),
        (
            '{"wait":{"group":"","position":"","kind":"mood","wake_on":"any","since":1}}',
            "kind: expected one of timer, re",
        ),
        (
            '{"wait":{"group":"","position":"","kind":"timer","wake_on":"x","since":1}}',
            "wake_on: expected one of any, ",
        ),
        (
            '{"wait":{"group":"","position":"","kind":"timer","wake_on":"any","since":1,"fire_at":1e999}}',
            "ExportedWait.fire_at: ",
        ),
        (
            '{"feed":{"position":"0","size":0,"group":"","wake_on":"all","template":[]}}',
            "ExportedFeed.size: expected int from 1 to 1,000,000, found int 0",
        ),
        (
            '{"feed":{"position":"0","size":9000000,"group":"","wake_on":"all","template":[]}}',
            "ExportedFeed.size: expected int from 1 to 1,000,000, found int 9000000",
        ),
        (
            '{"feed":{"position":"0","size":1,"group":"","wake_on":"all","template":1e999}}',
            "template: expected JSON, ",
        ),
        ('{"item":{"position":"0","item":1,"child":"c"}}', "no feed at '0' stands before it"),
        ('{"dedup":7}', "dedup: expected str, found int 7"),
        ('{"run":7}', "run: expected an object, found int 7"),
    ],
)
def test_a_line_that_is_none_is_refused(last, reason):
    """
    Not JSON, not an object, of no known sort, too large, too deep, of wrong types.
    """
    lines = [*good()[:3], last]
    lines[1] = lines[1].replace('"events":2', '"events":1')
    assert reason in refused(lines, 4)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"run_id": ""}, "RunFacts.run_id: expected an id, found str ''"),
        ({"run_id": 7}, "RunFacts.run_id: expected str, found int 7"),
        ({"workflow": None}, "RunFacts.workflow: expected str, found null"),
        ({"version": 10**30}, "RunFacts.version: expected int of 64 bits, found int 1000"),
        ({"sort": "mood"}, "RunFacts.sort: expected one of workflow, job, found str 'mood'"),
        ({"status": "mood"}, "RunFacts.status: expected one of pending, running"),
        ({"labels": {"a": 1}}, "RunFacts.labels.a: expected str, found int 1"),
        ({"labels": ["a"]}, "RunFacts.labels[0]: expected a pair of key and value, found str 'a'"),
        ({"attributes": [1]}, "RunFacts.attributes: expected an object, found list"),
        ({"created_at": "then"}, "RunFacts.created_at: expected float, found str 'then'"),
        ({"retry": {"on": 1}}, "RunFacts.retry.on: expected list[str], found int 1"),
        ({"retry": {"on": [], "attempts": "many"}}, "RunFacts.retry.attempts: expected "),
        (
            {"retry": {"on": [], "mood": 1}},
            "RunFacts.retry.mood: expected no field of this name",
        ),
        ({"retry": {"text": "nonsense"}}, "RunFacts.retry: expected JSON"),
        ({"retry": 7}, "RunFacts.retry: expected "),
        ({"lines": [1]}, "lines: expected an object"),
        ({"lines": {"events": "two"}}, "lines.events: expected int, found str 'two'"),
        ({"key_live": 1}, "RunFacts.key_live: expected bool, found int 1"),
    ],
)
def test_facts_with_something_wrong_are_refused(changes, reason):
    """
    Types, ranges, and words that must be known.
    """
    facts = json.loads(good()[1])
    facts["run"] |= changes
    assert reason in refused([good()[0], line(facts), *good()[2:]], 2)


@pytest.mark.parametrize(
    "facts, events, reason",
    [
        ({"status": "succeeded", "ended_at": 2.0}, GOOD, "said to be succeeded, but its last event is StepStarted"),
        ({"status": "failed", "ended_at": 2.0}, [STARTED, RunSucceeded(None, 2.0)], "said to be failed, but"),
        ({}, [STARTED, RunSucceeded(None, 2.0)], "said to be running, but its last event is RunSucceeded"),
        ({"status": "succeeded"}, [STARTED, RunSucceeded(None, 2.0)], "succeeded, with ended_at None"),
        ({"ended_at": 2.0}, GOOD, "running, with ended_at 2.0"),
        ({"successor": "x"}, GOOD, "successor 'x' with StepStarted as last event"),
        (
            {"status": "succeeded", "ended_at": 2.0, "successor": "r-1"},
            [STARTED, RunContinued("r-1", "ride", 2.0)],
            "continue as itself",
        ),
        ({}, [STARTED, RunRetried(7, [], at=2.0)], "cuts behind the end"),
        ({}, [], "run 'r-1' has no events"),
    ],
)
def test_a_run_that_contradicts_itself_is_refused(facts, events, reason):
    """
    Requests and replay rely on it later, without a look.
    """
    lines = written(RunHistory(evolve(FACTS, **facts), events))
    assert reason in refused(lines, len(lines) + 1)


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_file_that_was_cut_off_is_told(cut):
    """
    At the end of a line, too: the facts say what follows them, and the header how many runs do.
    """
    whole = RunHistory(FACTS, GOOD, [SignalReceived("go", "1", 2.0)])
    other = RunHistory(evolve(FACTS, run_id="r-2"), [STARTED])
    lines = written(whole, other, header=evolve(HEADER, runs=2))
    assert len(lines) == 7
    refused(lines[: 6 - cut + 1], 6 - cut + 2)


@pytest.mark.parametrize(
    "first, reason",
    [
        ("{}", 'expected the header of an export, {"durable": "journal export", ...}'),
        ('{"durable":"journal export","format":2}', "format: expected 1, found 2; a newer release of durable wrote it"),
        ('{"durable":"journal export","format":true}', "format: expected 1, found True"),
        ('{"durable":"journal export","format":"1"}', "format: expected 1, found '1'"),
        ('{"durable":"journal export","format":1,"runs":"x"}', "Header.runs: expected int | None, found str 'x'"),
        (b"SQLite format 3\x00\xff", "expected text in UTF-8"),
        ("SQLite format 3", "expected a JSON object"),
        ("", "expected a JSON object"),
    ],
)
def test_a_file_that_is_no_export_is_refused_by_its_first_line(first, reason):
    """
    Another format, a newer one, a database, a binary.
    """
    assert reason in refused([first], 1)


def test_files_without_what_they_need_are_refused():
    """
    Empty ones, events without a run, a run that comes twice.
    """
    assert "the file is empty" in refused([], 1)
    assert "expected the facts of a run" in refused([good()[0], good()[2]], 2)
    assert "'r-1' stands in this file twice" in refused([*good(), *good()[1:]], 5)
    assert "expected RunStarted" not in refused([*good()[:2], good()[3].replace('"seq":2', '"seq":1')], 3)
    feed = line({"feed": {"position": "0", "size": 1, "group": "", "wake_on": "all", "template": []}})
    assert "a second one at '0'" in refused([*good(), feed, feed], 6)


def test_times_survive_to_the_last_bit():
    """
    Checksums are made of them.
    """
    at = math.nextafter(1_800_000_000.1, 0)
    (found,) = read(written(RunHistory(FACTS, [evolve(STARTED, at=at)])))
    assert found.events[0].at == at


# --- redaction --------------------------------------------------------------------------------------------


def test_a_hook_knows_where_each_value_stands():
    """
    The name of a step is known for its outcomes, too.
    """
    history = RunHistory(
        evolve(FACTS, reason="why"),
        [*GOOD, StepSucceeded("0", '"secret"', 3.0), RunCancelled("because", at=4.0)],
        notes=[StepNote("0", "cursor", "5", 3.0)],
        feeds=[ExportedFeed("3", 1, "", "all", "[]", (FeedItem(2, "c", "1"),))],
    )
    seen = []

    def hide(where):
        seen.append((where.event, where.position, where.name, where.value))
        return "*"

    found = redacted(history, hide, Codec())
    assert seen == [
        ("RunStarted", None, "ride", [[], {}]),
        ("StepSucceeded", "0", "charge", "secret"),
        ("RunCancelled", None, "reason", "because"),
        ("Run", None, "reason", "why"),
        ("Note", "0", "cursor", 5),
        ("Item", "3", "c", 1),
    ]
    assert found.events == [
        evolve(STARTED, value='"*"'),
        evolve(GOOD[1], digest=""),
        StepSucceeded("0", '"*"', 3.0),
        RunCancelled("*", at=4.0),
    ]
    assert (found.run.reason, found.notes[0].value, found.feeds[0].items[0].value) == ("*", '"*"', '"*"')


def test_digests_are_left_out_and_keys_of_limits_and_queues_are_asked_for():
    """
    A PIN is found out by its digest; a queue and a limit's key may be named after somebody.
    """
    asked = SlotAwaited("0", "charge", 1, "narrow", "ann", "app.py:1", "0011223344556677", 3.0)
    started = StepStarted("1", "charge", 1, "app.py:2", "0011223344556677", 3.0)
    facts = evolve(FACTS, queue="for-ann", limit="narrow", limit_key="ann", arguments="ride:0011223344556677")
    found = redacted(RunHistory(facts, [STARTED, asked, started]), lambda where: "*", Codec())
    assert (found.run.queue, found.run.limit_key, found.run.arguments) == ("*", "*", None)
    assert found.events[1:] == [evolve(asked, key="*", digest=""), evolve(started, digest="")]
    assert redacted(RunHistory(FACTS, [STARTED]), lambda where: "*", Codec()).run.queue == "default"


#: What leaves as it is: what the code calls things, where they stand, and what tells one thing from another.
SHOWN = {
    "position", "positions", "kept", "at_position", "name", "names", "workflow", "site", "type", "limit",
    "run_id", "seed", "source", "request", "callback",
}  # fmt: skip


def secret(of):
    """
    A text that is found again.
    """
    return f"SECRET-{of}-TERCES"


def found_in(history):
    """
    What each `secret` in the export of a run is of.
    """
    return set(re.findall("SECRET-(.*?)-TERCES", "".join(export_lines(history))))


@pytest.mark.parametrize("event", EVENT_CLASSES.values(), ids=lambda event: event.__name__)
def test_a_hook_is_asked_about_every_text_of_every_event(event):
    """
    Or it does not leave; but for what is named here, so that a field which is added is thought of.
    """
    fields, hints = {}, class_hints(event)
    for name in (each.name for each in attrs_fields(event)):
        kind = hints[name]
        if name == "value":
            fields[name] = dumps(secret(name))
        elif kind in (list[str], tuple[str, ...], tuple[str, ...] | None):
            fields[name] = [secret(name)]
        elif kind in (str, str | None):
            fields[name] = secret(name)
        else:
            fields[name] = 1
    history = RunHistory(FACTS, [event(**fields)], pending=[event(**fields)])
    assert found_in(history) >= {name for name, given in fields.items() if given != 1}
    assert found_in(redacted(history, lambda where: "*", Codec())) <= SHOWN


def test_a_hook_is_asked_about_every_text_beside_the_events():
    """
    Of the run, its notes, its windows, and what is to come.
    """
    then = {
        "workflow": "w", "key": secret("then-key"), "arguments": secret("then"), "queue": secret("then-queue"),
        "labels": {"a": secret("then-label")}, "limit_key": secret("then-limit"),
        "started": {"value": dumps(secret("then-value")), "carried": secret("then-carried")},
    }  # fmt: skip
    texts = {name: secret(name) for name in ("key", "reason", "queue", "limit_key", "arguments")}
    facts = evolve(
        FACTS, **texts, labels={"a": secret("label")}, attributes=dumps(secret("attribute")), follow_ups=dumps([then])
    )
    history = RunHistory(
        facts,
        [STARTED],
        notes=[StepNote("0", "cursor", dumps(secret("note")), 3.0)],
        feeds=[ExportedFeed("3", 1, "", "all", dumps([then]), (FeedItem(2, "c", dumps(secret("item"))),))],
        dedups=[secret("dedup")],
    )
    assert len(found_in(history)) == 17  # `arguments` and `then` among them: digests
    assert found_in(redacted(history, lambda where: {} if where.name == "labels" else "*", Codec())) == set()


def test_bytes_without_their_codec_cannot_be_redacted():
    """
    Better no export than one of which nobody knows what it tells.
    """
    with pytest.raises(DecodeError, match="codec= hooks"):
        redacted(RunHistory(FACTS, [evolve(STARTED, value=b"\x00")]), lambda where: where.value, Codec())


def test_context_variables_do_not_leave():
    """
    Those of `Engine(carry=)`: nobody was asked about them, and they may name a person.
    """
    then = dumps([{"workflow": "w", "started": {"value": None, "carried": '{"user":1}'}}])
    history = RunHistory(evolve(FACTS, follow_ups=then), [evolve(STARTED, carried='{"user":1}')])
    found = redacted(history, lambda where: where.value, Codec())
    assert found.events[0].carried == ""
    assert "user" not in found.run.follow_ups


def test_bytes_in_follow_ups_are_read_by_the_codec():
    """
    As those of events.
    """

    class Rot:
        def encode(self, data):
            return bytes(255 - each for each in data)

        decode = encode

    value = {"$bytes": base64.b64encode(Rot().encode(b'"secret"')).decode()}
    then = [{"workflow": "w", "key": "k", "started": {"value": value}, "follow_ups": [{"started": {"value": None}}]}]
    history = RunHistory(evolve(FACTS, follow_ups=dumps(then)), [STARTED])
    seen = {}

    def look(where):
        seen[where.event, where.name] = where.value
        return where.value

    found = redacted(history, look, Codec(Rot()))
    assert seen["FollowUp", "w"] == "secret"
    assert seen["FollowUp", "key"] == "k"
    assert json.loads(found.run.follow_ups)[0]["started"]["value"] == '"secret"'

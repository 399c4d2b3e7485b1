"""
`durable graph`: a run as text, mermaid, dot and svg.
"""

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable import (
    Flow,
    Return,
    for_each,
    gather,
    job,
    poll_until,
    race,
    settle,
    sleep,
    step,
    timeout,
    wait_for,
    workflow,
)
from durable._cli.drawing.model import MOST_MEMBERS, folded, nodes_of, worst
from durable._cli.drawing.svg import svg_lines
from durable._cli.drawing.text import dot_lines, mermaid_lines, text_lines
from durable._cli.terminal.output import Output
from durable._core.journal.events import (
    CallbackCompleted,
    CallbackOpened,
    RunStarted,
    RunSucceeded,
    StepFailed,
    StepRetrying,
    StepStarted,
    StepSucceeded,
)
from tests.core.drive import World, run

pytestmark = pytest.mark.anyio

SVG = "{http://www.w3.org/2000/svg}"


@step
def add(n: int) -> int:
    return n + 1


@step(name='say "hello" <&> \\ ]')
def hostile(n: int) -> int:
    return n


@step
def fail(n: int) -> int:
    raise ValueError(str(n))


@job
def tell(n: int) -> str:
    return str(n)


async def twice(n: int) -> int:
    return await add(await add(n))


@workflow
async def shaped(n: int) -> Flow[list]:
    both: list = yield gather(twice(n), tell(n), settle(fail(n)))
    yield for_each(add, list(range(20)), concurrency=None)
    yield hostile(n)
    yield race(wait_for("go", str), timeout(sleep(500), 5))
    yield Return(both)


@workflow
async def parent(n: int) -> Flow[int]:
    found: int = yield child(n)
    yield Return(found)


@workflow
async def child(n: int) -> Flow[int]:
    found: int = yield add(n)
    yield Return(found)


def by_position(nodes, found=None):
    found = {} if found is None else found
    for node in nodes:
        found[node.position] = node
        for member in node.members:
            by_position(member, found)
    return found


def test_a_run_is_a_sequence_with_groups_beside():
    """
    Each command has its place, its status and how long it took; helpers are sequences within their group.
    """
    nodes = nodes_of(run(shaped(1), signals=[]).events)
    assert [node.label for node in nodes][:3] == ["shaped", "gather of 3", "for_each add of 20"]
    assert nodes[-1].label == "failed"  # the race was won by the time that is over
    assert [[node.position for node in member] for member in nodes[1].members] == [["0.0.0", "0.0.1"], ["0.1"], ["0.2"]]
    found = by_position(nodes)
    assert (found["0.1"].kind, found["0.1"].status, found["0.1"].run_id) == ("child", "succeeded", "r~.0.1")
    assert found["0.2.0"].status == "failed"
    assert (found["3.0"].status, found["3.1"].status) == ("done", "failed")
    assert found["0.0.0"].seconds > 0


def test_members_are_called_by_their_names():
    """
    A command, or the first one of a helper; not what stands deeper, nor members that have no names.
    """

    @workflow
    async def named() -> Flow[None]:
        yield gather({"eu": add(1), "us": twice(2), "asia": gather(add(3), twice(4))})
        yield for_each(add, [5], names=lambda n: f"item {n}")

    labels = {position: node.label for position, node in by_position(nodes_of(run(named()).events)).items()}
    assert {position: label for position, label in labels.items() if "(" in label} == {
        "0.0": "add (eu)", "0.1.0": "add (us)", "0.2": "gather of 2 (asia)", "1.0": "add (item 5)"
    }  # fmt: skip


def test_a_timer_is_drawn_by_its_name():
    """
    As `run.history()` tells it: by what the code calls it, or else by what it is.
    """

    @workflow
    async def naps() -> Flow[None]:
        yield sleep(1)
        yield sleep(1, name="nap")

    nodes = nodes_of(run(naps()).events)
    assert [(node.kind, node.label) for node in nodes[1:-1]] == [("timer", "sleep"), ("timer", "nap")]


def test_a_group_is_drawn_with_its_name():
    """
    What it is, and what the code calls it; its members by theirs.
    """

    @workflow
    async def named() -> Flow[None]:
        yield gather({"eu": settle(add(1), name="careful")}, name="regions")
        yield for_each(add, [5], name="rides")
        yield timeout(add(1), 60, name="patience")
        yield poll_until(add(1), every=1, name="until added")

    nodes = nodes_of(run(named()).events)
    assert [node.label for node in nodes[1:-1]] == [
        "gather of 1 (regions)", "for_each add of 1 (rides)", "timeout (patience)", "poll_until (until added)",
    ]  # fmt: skip
    assert by_position(nodes)["0.0"].label == "settle of 1 (careful) (eu)"


def test_what_is_open_is_open():
    """
    A run that waits: what is passed is passed, the rest is under way.
    """
    world = World(shaped(1))
    world.begin()
    found = by_position(nodes_of(world.events))
    assert found["0"].status == found["0.0.0"].status == found["0.1"].status == "open"
    events = [
        RunStarted("w", 1, "s", None, 0.0),
        StepStarted("0", "a", 1, "", "", 1.0),
        StepRetrying("0", 1, 9.0, None, 2.0),
    ]
    assert nodes_of(events)[1].status == "retrying"
    again = nodes_of([*events, StepStarted("0", "a", 2, "", "", 9.0)])[1]
    assert (again.status, again.attempts) == ("open", 2)


def test_a_callback_is_open_until_it_is_answered_or_its_run_has_ended():
    """
    It is made before it is awaited, so that what comes behind it has not passed it.
    """
    events = [
        RunStarted("w", 1, "s", None, 0.0),
        CallbackOpened("0", "paid", None, None, "int", "", "", 1.0),
        StepStarted("1", "ask", 1, "", "", 1.0),
        StepSucceeded("1", None, 2.0),
    ]
    statuses = {
        "open": nodes_of(events),
        "succeeded": nodes_of([*events, CallbackCompleted("0", "7", 3.0)]),
        "cancelled": nodes_of([*events, RunSucceeded(None, 3.0)]),
    }
    assert {status: by_position(nodes)["0"].status for status, nodes in statuses.items()} == {
        status: status for status in statuses
    }


def test_many_members_are_folded():
    """
    The first few, how many more and how they stand, the last.
    """
    nodes = nodes_of(run(shaped(1)).events)
    members = by_position(nodes)["1"].members
    shown = folded(members)
    assert len(members) == 20
    assert len(shown) <= MOST_MEMBERS
    assert shown[-2][0].label == "14 more (all succeeded)"
    assert worst([]) == "done"
    text = "\n".join(text_lines(nodes, Output()))
    assert "14 more (all succeeded)" in text


def test_hostile_names_are_quoted_in_every_format():
    """
    Quotes, brackets, backslashes and markup stay text.
    """
    nodes = nodes_of(run(shaped(1)).events)
    mermaid = "\n".join(mermaid_lines(nodes))
    assert "say #34;hello#34; #60;#38;#62; #92; #93;" in mermaid
    assert mermaid.count("subgraph") == mermaid.count("\n  end") + mermaid.count("    end")
    dot = "\n".join(dot_lines(nodes))
    assert 'say \\"hello\\" <&> \\\\ ]' in dot
    assert dot.count("{") == dot.count("}")
    svg = ET.fromstring("\n".join(svg_lines(nodes, "a <b> & 'c'")))
    assert svg.find(f"{SVG}title").text == "a <b> & 'c'"
    assert any('say "hello" <&>' in (each.text or "") for each in svg.iter(f"{SVG}text"))


def test_a_drawing_needs_nothing_from_elsewhere_and_fits_its_page():
    """
    One valid document, no link, no script; every box lies on the page.
    """
    text = "\n".join(svg_lines(nodes_of(run(shaped(1)).events), "t"))
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text
    page = ET.fromstring(text)
    width, height = float(page.get("width")), float(page.get("height"))
    for box in page.iter(f"{SVG}rect"):
        x, y = float(box.get("x", 0)), float(box.get("y", 0))
        assert x >= 0
        assert x + float(box.get("width")) <= width + 0.5
        assert y + float(box.get("height")) <= height + 0.5


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.text(max_size=12), st.sampled_from("sfrn")),
        max_size=12,
    )
)
@settings(max_examples=80)
def test_any_history_can_be_drawn(commands):
    """
    Whatever commands and outcomes stand in it, in whatever order: each format draws it, and the SVG is valid.
    """
    events = [RunStarted("w\x00", 1, "s", None, 0.0)]
    for at, (numbers, name, outcome) in enumerate(commands, 1):
        position = ".".join(map(str, numbers))
        events.append(StepStarted(position, name, 1, "", "", float(at)))
        if outcome == "s":
            events.append(StepSucceeded(position, "1", at + 0.5))
        elif outcome == "f":
            events.append(StepFailed(position, 1, None, at + 0.5))
        elif outcome == "r":
            events.append(StepRetrying(position, 1, at + 9.0, None, at + 0.5))
    nodes = nodes_of(events)
    ET.fromstring("\n".join(svg_lines(nodes, "w")))
    for draw in (mermaid_lines, dot_lines):
        assert list(draw(nodes))
    assert list(text_lines(nodes, Output()))


async def test_the_command_draws_to_standard_output_and_to_a_file(engines, cli, tmp_db, tmp_path):
    """
    Each format; children are looked into as far as --depth says; an existing file is not overwritten.
    """
    engine = await engines.file(parent, child)
    await (await engine.start(parent(1), id="r")).result(5)
    said = cli("graph", "r", "--db", tmp_db)
    assert said.code == 0
    assert said.lines[0] == "parent r, succeeded"
    assert re.search(r"└─ succeeded|├─ 0  child child  ok", said.out)
    assert "step add" in said.out
    assert "step add" not in cli("graph", "r", "--db", tmp_db, "--depth", "0").out
    assert "step add" in cli("graph", "r", "--db", tmp_db, "--depth", "1").out
    for kind, begins in (("mermaid", "flowchart"), ("dot", "digraph"), ("svg", "<svg")):
        assert cli("graph", "r", "--db", tmp_db, "--format", kind).out.startswith(begins)
        file = tmp_path / f"run.{kind}"
        assert cli("graph", "r", "--db", tmp_db, "--format", kind, "--output", file).code == 0
        assert file.read_text().startswith(begins)
    again = cli("graph", "r", "--db", tmp_db, "--output", tmp_path / "run.svg")
    assert again.code == 2
    assert "File exists" in again.err
    (plain,) = cli("graph", "r", "--db", tmp_db, "--depth", "1", "--json").values
    assert plain["nodes"][1]["inside"][0]["label"] == "add"
    assert cli("graph", "nobody", "--db", tmp_db).code == 3

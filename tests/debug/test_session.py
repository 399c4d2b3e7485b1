"""
The debugger's commands: lines in, lines out, on histories of every sort.
"""

import inspect
import io
import itertools
import sys

import pytest

from durable import Flow, Return, gather, job, race, sleep, step, timeout, wait_for, workflow
from durable._core.codec.codec import Codec
from durable._core.journal.events import CancelRequested, RunCancelled, StepSucceeded
from durable._core.recorded.export_format import RunFacts, RunHistory
from durable._debug.session import Session
from durable._debug.stepping import ReplayPdb
from tests.core.drive import World, run


@step
def add(n: int) -> int:
    return n + 1


@step(retry=3)
def fail(n: int) -> int:
    raise ValueError(f"no {n}")


@job
def tell(n: int) -> str:
    return f"told {n}"


async def add_twice(n: int) -> int:
    first = await add(n)
    return await add(first)


async def outer(n: int) -> int:
    label = "outer"
    found = await add_twice(n)
    return found + len(label)


@workflow
async def shopping(n: int) -> Flow[int]:
    seen: list[int] = []
    for i in range(3):
        x: int = yield add(i)
        seen.append(x)
    both: list = yield gather(outer(10), tell(5), add_twice(20))
    total = sum(seen) + both[0]
    try:
        yield fail(total)
    except ValueError as error:
        seen.append(len(str(error)))
    yield race(wait_for("go", str), timeout(sleep(500), 5))
    yield Return(total)


@workflow
async def buggy(n: int) -> Flow[int]:
    prices = {"tea": 3}
    total: int = yield add(n)
    total += prices["coffee"]
    yield Return(total)


@workflow
async def breaks(n: int) -> Flow[int]:
    a: int = yield add(n)
    breakpoint()  # noqa: T100 - what is tested
    b: int = yield add(a)
    yield Return(b)


class Typed(Session):
    """
    A session whose lines are kept, for whoever typed.
    """

    def __init__(self, *args, **options):
        self.shown, self.done = [], False
        super().__init__(*args, write=self.shown.append, **options)

    def carry_out(self, line):
        """
        What one line of input shows.
        """
        self.shown.clear()
        self.done = self.onecmd(line)
        return [*self.shown]


def session_of(events, definition, status="failed", pdb="", pending=(), reason=None, script=None):
    facts = RunFacts(
        run_id="r", workflow=definition.name, version=1, sort="workflow", status=status, created_at=1.0, reason=reason
    )
    stdin, stdout = io.StringIO(pdb), io.StringIO()
    recorded = RunHistory(facts, list(events), list(pending))
    made = Typed(definition, recorded, Codec(), new_pdb=lambda: ReplayPdb(stdin, stdout), script=script)
    made.pdb_output = stdout
    return made


@pytest.fixture(scope="module")
def shopped():
    """
    The events of a run of `shopping`, to its end.
    """
    return run(shopping(1)).events


@pytest.fixture
def session(shopped):
    """
    A session on it, at its first stop.
    """
    return session_of(shopped, shopping)


def said(session, *commands):
    lines = []
    for command in commands:
        lines = session.carry_out(command)
    return "\n".join(lines)


# --- moving --------------------------------------------------------------------------------------------


def test_it_begins_at_the_first_stop_and_says_where_the_end_is(session):
    """
    Which run, how long, how it ended; then the first stop.
    """
    header = session.header()
    assert header[0].startswith("shopping r, version 1, failed: ")
    assert "it came to an end at stop #" in header[1]
    assert header[2].startswith("#0  0  test_session.py:")
    assert "x: int = yield add(i)" in header[3]
    assert header[4] == "  0      step 'add' -> 1"


def test_next_and_back_by_one_and_by_several(session):
    """
    What changed is shown, with what it was; an empty line goes on in the same direction.
    """
    forward = session.carry_out("next")
    assert forward[0].startswith("#1  1  ")
    assert "  seen = [1]  (was [])" in forward
    assert "  x = 1" in forward
    assert session.carry_out("next 2")[0].startswith("#3  3  ")
    assert session.carry_out("")[0].startswith("#5  ")
    back = session.carry_out("b 4")
    assert back == forward
    assert session.carry_out("back")[0].startswith("#0  ")
    assert session.carry_out("")[0] == "this is the first stop"
    assert session.carry_out("last")[0].startswith(f"#{len(session.stops) - 1}  ")
    assert session.carry_out("next")[0] == "this is the last stop"
    assert session.carry_out("first")[0].startswith("#0  ")


def test_going_anywhere_shows_what_walking_there_shows(shopped):
    """
    Each stop, reached by `goto` from the end, from the beginning, or step by step: the same lines.
    """
    walker = session_of(shopped, shopping)
    walked = [walker.here()] + [walker.carry_out("next") for _ in walker.stops[1:]]
    jumper = session_of(shopped, shopping)
    for number in reversed(range(len(walked))):
        assert jumper.carry_out(f"goto #{number}") == walked[number]
    for number in (3, 0, 7, 2, len(walked) - 1, 1):
        assert session_of(shopped, shopping).carry_out(f"goto #{number}") == walked[number]


def test_goto_takes_positions_of_commands_members_and_helpers(session):
    """
    Wherever the command was asked for.
    """
    assert session.carry_out("goto 3.1")[0].startswith("#3  3  ")
    helper = session.carry_out("goto 3.0.1")
    assert "(strand 3.0)" in helper[0]
    assert "first = 11" in "\n".join(helper)
    assert said(session, "goto 99").startswith("*** no command at position '99'; there are 0, 1, 2, 3")
    assert session.failed
    assert "the last is #" in said(session, "goto #99")
    assert "goto 3.1.0, or goto #12" in said(session, "goto")


def test_find_goes_to_the_first_stop_where_it_is_true(session):
    """
    Also for what becomes false again; where it raises it is false; found nowhere, it stays where it was.
    """
    assert "first true at stop #1" in said(session, "find x == 1")
    assert "first true at stop #2" in said(session, "last", "find len(seen) == 2 and i == 2")
    session.carry_out("goto #2")
    assert "*** x == 77 is true at no stop" in said(session, "find x == 77")
    assert session.replay.stop.number == 2
    assert "an expression is needed, as in: find total > 100" in said(session, "find")
    assert "is true at no stop" in said(session, "find 1 +")


def test_breakpoints_stop_continue_in_both_directions(session):
    """
    By name, by line, by file and line, by condition; they can be listed and deleted.
    """
    source, first = inspect.getsourcelines(shopping.fn)
    line = first + next(number for number, text in enumerate(source) if "yield fail(total)" in text)
    assert said(session, "break tell") == "breakpoint 1: commands called tell"
    assert said(session, f"break {line}") == f"breakpoint 2: line {line}"
    assert said(session, f"break test_session.py:{line}") == f"breakpoint 3: test_session.py:{line}"
    assert said(session, "break if len(seen) == 2") == "breakpoint 4: if len(seen) == 2"
    assert said(session, "continue").startswith("breakpoint 4: if len(seen) == 2\n#2")
    assert said(session, "c").startswith("breakpoint 1: commands called tell\n#3")
    assert said(session, "c").startswith("breakpoint 2: line")
    assert said(session, "rcontinue").startswith("breakpoint 1: commands called tell\n#3")
    assert said(session, "rc").startswith("breakpoint 4")
    assert said(session, "rc").startswith("no breakpoint was met: this is the first stop")
    assert said(session, "breaks").count("breakpoint") == 4
    assert said(session, "delete 1") == "deleted breakpoint 1: commands called tell"
    assert said(session, "delete 1").startswith("*** no breakpoint '1'")
    assert said(session, "delete all").count("deleted") == 3
    assert said(session, "breaks") == "no breakpoints"
    assert said(session, "continue").startswith("no breakpoint was met: this is the last stop")
    assert said(session, "continue").startswith("this is the last stop")
    assert "break at what?" in said(session, "break")
    assert said(session, "break 3.0.1", "first", "continue").startswith("breakpoint 5")


# --- looking -------------------------------------------------------------------------------------------


def test_source_with_the_current_line_marked(session):
    """
    Around the stop, within its function.
    """
    lines = session.carry_out("list")
    assert sum(line.startswith("->") for line in lines) == 1
    assert "x: int = yield add(i)" in next(line for line in lines if line.startswith("->"))
    assert len(session.carry_out("list 3")) == 3
    assert lines[0].endswith("@workflow")
    assert "*** a number is needed, found 'x'" in said(session, "list x")


def test_locals_with_a_mark_at_what_changed(session):
    """
    Also after `here` has shown it, and with the value from before.
    """
    session.carry_out("goto #2")
    assert session.carry_out("locals") == [
        "  n = 1", "* seen = [1, 2]  (was [1])", "* i = 2  (was 1)", "* x = 2  (was 1)",
    ]  # fmt: skip


def test_the_recorded_event_what_led_here_and_what_came_of_it(session):
    """
    Attempts with their delays, and the traceback of a failure.
    """
    text = said(session, "goto 4", "event")
    assert "led here: " in text
    assert "recorded: StepStarted(position='4', name='fail', attempt=1" in text
    assert text.count("StepRetrying: ValueError: no") == 2
    assert "StepFailed: ValueError: no" in text
    assert "led here" not in said(session, "first", "event")
    last = said(session, "last", "event")
    assert "raised TimeoutError: not done within 5 s" in last


def test_the_stack_of_helpers(session):
    """
    The workflow's helper and those that it awaits; up and down move among them, and expressions follow.
    """
    text = said(session, "goto 3.0.0", "where")
    assert [line.split("  ")[-1] for line in text.splitlines() if "test_session.py" in line] == [
        "outer(n)", "add_twice(n)",
    ]  # fmt: skip
    assert text.splitlines()[2].startswith("-> ")
    assert "*** NameError" in said(session, "print label")
    assert said(session, "up").splitlines()[0].startswith("-> ")
    assert said(session, "print label") == "'outer'"
    assert session.carry_out("locals") == ["  n = 10", "  label = 'outer'"]
    assert "this is the workflow itself" in said(session, "up")
    session.carry_out("down")
    assert "this is the innermost function" in said(session, "down")
    assert "*** NameError" in said(session, "print label")
    everywhere = said(session, "where all")
    assert "strand (the body), at 3" in everywhere
    assert "strand 3.2, at -" in everywhere


def test_strands_and_what_each_waits_for(session):
    """
    The one that stopped is marked.
    """
    lines = session.carry_out("goto 3.2.0") and session.carry_out("strands")
    assert any(line.startswith("  (the body): at 3, gather of 3") for line in lines)
    assert any(line.startswith("* 3.2: at 3.2.0, step 'add'") for line in lines)
    session.carry_out("last")
    assert session.carry_out("strands") == ["all strands have ended"]
    assert session.carry_out("where all") == ["no code stands anywhere: all strands have ended"]


def test_expressions_see_the_frame_and_change_nothing(session):
    """
    Globals, locals, comprehensions over both; errors are one line; long values are cut, and whole with pp.
    """
    session.carry_out("goto #2")
    assert said(session, "p [add.name + str(each) for each in seen]") == "['add1', 'add2']"
    assert said(session, "print (x := 99)") == "99"
    assert said(session, "print x") == "2"
    assert said(session, "p 1 / 0") == "*** ZeroDivisionError: division by zero"
    assert said(session, "p not an expression").startswith("*** SyntaxError")
    assert "an expression is needed" in said(session, "print")
    assert said(session, "p 'x' * 1000").endswith("x'")
    assert len(said(session, "p 'x' * 1000")) < 200
    assert len(said(session, "pp list(range(300))")) > 1000
    assert "<B instance at" in said(session, "p type('B', (), {'__repr__': lambda s: 1 / 0})()")
    assert "its repr raised ZeroDivisionError" in said(session, "pp type('B', (), {'__repr__': lambda s: 1 / 0})()")
    assert said(session, "p (_ for _ in ()).throw(SystemExit)").startswith("*** SystemExit")


def test_the_commands_around_here(session):
    """
    The current one is marked; each with what came of it.
    """
    lines = session.carry_out("goto #3") and session.carry_out("history 2")
    assert len(lines) == 5
    assert lines[2].startswith("-> #3    3      gather of 3 (and 1 more)")
    assert "step 'add' -> 1" in session.carry_out("history 9")[0]


def test_help_explains_every_command(session):
    """
    All of them, one of them, and beginnings that are clear.
    """
    text = said(session, "help")
    assert all(f"  {usage}  " in text and does in text for usage, does in session.commands().values())
    assert "EOF" not in text
    assert said(session, "help rc").startswith("rcontinue: go back to where")
    assert said(session, "loc").endswith("i = 0")
    assert said(session, "p").startswith("*** an expression")
    assert "'br' could be break, breaks" in said(session, "br")
    assert "no command is called 'xyz': `help` lists them" in said(session, "xyz")
    assert session.carry_out("") == []
    session.carry_out("quit")
    assert session.done


def test_completion_of_commands_positions_names_and_locals(session, monkeypatch):
    """
    What a tab offers depends on the command, however it was typed.
    """
    readline = pytest.importorskip("readline")

    def offered(line):
        text = line.rpartition(" ")[2]
        monkeypatch.setattr(readline, "get_line_buffer", lambda: line)
        monkeypatch.setattr(readline, "get_begidx", lambda: len(line) - len(text))
        monkeypatch.setattr(readline, "get_endidx", lambda: len(line))
        return list(iter(lambda: session.complete(text, state.__next__()), None))

    for line, expected in {
        "ba": ["back"],
        "goto 3.0": ["3.0.0", "3.0.1"],
        "got 3.0.1": ["3.0.1"],
        "break te": ["tell"],
        "print se": ["seen"],
        "p se": ["seen"],
        "help ba": ["back"],
        "nonsense x": [],
    }.items():
        state = itertools.count()
        assert offered(line) == expected, line


# --- runs in other states ------------------------------------------------------------------------------


def test_a_failed_run_shows_the_line_that_raised():
    """
    `last` is the failing turn, with the locals of then.
    """
    session = session_of(run(buggy(1)).events, buggy, reason="KeyError: 'coffee'")
    assert session.header()[1:3] == [
        "  KeyError: 'coffee'",
        "it came to an end at stop #1 (`last` goes there): raised KeyError: 'coffee'",
    ]
    lines = session.carry_out("last")
    assert 'total += prices["coffee"]' in lines[1]
    assert "  raised KeyError: 'coffee'" in lines
    assert said(session, "print prices") == "{'tea': 3}"
    assert said(session, "strands") == "all strands have ended"


def test_a_waiting_run_says_what_is_open():
    """
    Where it stands, and what it waits for.
    """
    world = World(shopping(1))
    world.begin()
    session = session_of(world.events, shopping, status="waiting")
    assert session.header()[1] == "it waits at stop #0 (`last` goes there)"
    assert session.here()[2] == "  0      step 'add': still open"
    assert "still open" in said(session, "event")


def test_a_divergence_shows_its_report():
    """
    The report, with both places; the code stands where it asked for something else.
    """

    @workflow(name="buggy")
    async def changed(n: int) -> Flow[int]:
        before = n
        yield fail(before)
        yield add(n)

    session = session_of(run(buggy(1)).events, changed, status="blocked")
    text = said(session, "last")
    assert "diverged" in text
    assert "run 'r' diverged from its journal at command 0" in text
    assert "recorded at debug/test_session.py:" in text
    assert said(session, "print before") == "1"
    assert "diverged" in said(session, "history")
    assert "diverged" in said(session, "event")


def test_what_waits_in_the_inbox_is_delivered_at_the_end():
    """
    A recorded value that does not fit shows as the turn that is stuck.
    """
    world = World(buggy(1))
    world.begin()
    pending = [StepSucceeded("0", '"text"', 1001.0)]
    session = session_of(world.events, buggy, status="blocked", pending=pending)
    assert "cannot read result of step 'add'" in said(session, "last")


def test_a_run_whose_code_never_ran():
    """
    Cancelled before its first turn: there is nothing to walk through, and every command says so.
    """
    session = session_of(
        [run(buggy(1)).events[0], CancelRequested("no", 1.0), RunCancelled("no", 1.0)], buggy, "cancelled"
    )
    assert session.header()[-1] == "its code has not run: it ended before its first turn"
    for command in ("next", "locals", "list", "history", "goto 1", "print n", "event", "pdb"):
        assert said(session, command).startswith("***"), command


def test_values_of_the_applications_codec_are_named_and_not_shown():
    """
    Bytes of codec hooks are no text.
    """
    events = run(buggy(1)).events
    changed = [
        StepSucceeded("0", b"\x00\x01", event.at) if isinstance(event, StepSucceeded) else event for event in events
    ]
    session = session_of(changed, buggy)
    assert "<2 bytes, encoded by the application's codec>" in "\n".join(session.here())


# --- pdb -----------------------------------------------------------------------------------------------


def test_pdb_inspects_and_steps_line_by_line_to_the_next_stop(shopped):
    """
    Real pdb in the user's frame; `n` goes on in user code; at the next stop the session has moved.
    """
    session = session_of(shopped, shopping, pdb="p seen\nn\nn\nc\n")
    before = sys.gettrace()
    shown = session.carry_out("pdb")
    output = session.pdb_output.getvalue()
    assert "(pdb) []" in output
    assert "-> seen.append(x)" in output
    assert shown[0].startswith("#1  1  ")
    assert sys.gettrace() is before


@pytest.mark.parametrize("leave", ["c", "q", ""])
def test_leaving_pdb_comes_back_to_the_same_stop(shopped, leave):
    """
    Without a step nothing moves, and quitting pdb does not quit the session.
    """
    session = session_of(shopped, shopping, pdb=f"p n\n{leave}\n" if leave else "p n\n")
    before = sys.gettrace()
    assert session.carry_out("pdb")[0].startswith("#0  0  ")
    assert sys.gettrace() is before
    assert not session.done
    assert session.carry_out("next")[0].startswith("#1  1  ")


def test_pdb_at_the_last_stop_looks_only():
    """
    Where the code has ended there is nothing to step to.
    """
    session = session_of(run(buggy(1)).events, buggy, pdb="p prices\nn\n")
    session.carry_out("last")
    assert session.carry_out("pdb")[0].startswith("#1  1  ")
    assert "{'tea': 3}" in session.pdb_output.getvalue()


def test_quitting_pdb_in_the_middle_changes_nothing_of_the_replay(shopped):
    """
    The replay goes on to its next stop as if nobody had looked.
    """
    session = session_of(shopped, shopping, pdb="n\nq\n")
    session.carry_out("pdb")
    walker = session_of(shopped, shopping)
    walker.carry_out("next")
    assert session.here() == walker.here()
    assert session.carry_out("last") == walker.carry_out("last")


def test_breakpoint_in_workflow_code_opens_pdb_on_new_ground_only(monkeypatch):
    """
    Going forward the first time it asks; going back and forward again it does not, nor in the silent pass.
    """
    with monkeypatch.context() as recording:
        recording.setattr(sys, "breakpointhook", lambda: None)
        events = run(breaks(1)).events
    hook = sys.breakpointhook
    session = session_of(events, breaks, "succeeded", pdb="p a\nc\np 'again'\nc\n")
    assert session.pdb_output.getvalue() == ""
    session.carry_out("next")
    assert "(pdb) 2" in session.pdb_output.getvalue()
    before = session.pdb_output.getvalue()
    session.carry_out("back")
    session.carry_out("next")
    session.carry_out("last")
    assert session.pdb_output.getvalue() == before
    assert sys.breakpointhook is hook


@pytest.mark.parametrize("command", ["continue", "find total == 4"])
@pytest.mark.parametrize("leave", ["c", "n\nn\nn\nn\nn\nn\nn\nn", "q"])
def test_breakpoint_opens_pdb_once_and_leaves_tracing_as_it_was(monkeypatch, command, leave):
    """
    Also on the way to somewhere else, where code is replayed more than once; stepping does not get into ours.
    """
    with monkeypatch.context() as recording:
        recording.setattr(sys, "breakpointhook", lambda: None)
        events = run(breaks(1)).events
    session = session_of(events, breaks, "succeeded", pdb=f"p 'here'\n{leave}\n")
    before = sys.gettrace()
    session.carry_out(command)
    shown = session.pdb_output.getvalue()
    assert shown.count("(pdb) 'here'") == 1
    assert "durable/_" not in shown
    assert sys.gettrace() is before


# --- scripts -------------------------------------------------------------------------------------------


def test_a_script_reads_like_a_session(shopped):
    """
    Commands are echoed, comments are not carried out, failures are told, and quit ends it.
    """
    script = io.StringIO("# look\nnext\n\nprint x\nprint nope\nq\nnext\n")
    session = session_of(shopped, shopping, script=script)
    session.cmdloop()
    lines = session.shown
    assert session.failed
    assert lines[0] == "(debug) next"
    assert "(debug)" in lines
    assert "2" in lines
    assert "*** NameError: name 'nope' is not defined" in lines
    assert lines[-1] == "(debug) q"

"""
`durable debug`: a real journal, a script, and a person at a terminal.
"""

import os
import pty
import select
import subprocess
import sys
import time

import pytest

from durable import Engine
from durable._cli.applications import load_application

pytestmark = pytest.mark.anyio

APP = """
from durable import Flow, Return, job, step, workflow

@step
async def add(n: int) -> int:
    return n + 1

@job
async def tell(text: str) -> str:
    return text

@workflow
async def order(n: int) -> Flow[int]:
    prices = {"tea": 3}
    total: int = yield add(n)
    yield tell("hello")
    total += prices["coffee"]
    yield Return(total)
"""

TREE = """
from durable import Flow, Return, step, workflow

@step
async def one() -> int:
    return 1

@workflow
async def leaf() -> Flow[int]:
    yield Return((yield one()))

@workflow
async def root() -> Flow[int]:
    first: int = yield leaf()
    second: int = yield leaf()
    yield Return(first + second + 1)
"""


@pytest.fixture
async def journal(tmp_path, reached):
    """
    A journal with one failed run, and the application. (path, application)
    """
    app, db = tmp_path / "debugged.py", tmp_path / "app.db"
    app.write_text(APP)
    definitions = load_application(str(app)).definitions
    async with Engine(db, definitions, durability="process") as engine:
        run = await engine.start(sys.modules["debugged"].order(1), id="r")
        await reached(run, "failed")
    return db, app


async def test_a_script_of_commands_is_a_transcript(cli, journal, tmp_path):
    """
    By -c, from a file, beginning at a position; exit code 1 if a command failed.
    """
    db, app = journal
    said = cli("debug", "r", "--db", db, "--app", app, "-c", "last", "-c", "back", "-c", "print total")
    assert said.code == 0, said
    assert "order r, version 1, failed: 3 stops" in said.lines[0]
    assert "(debug) last" in said.lines
    assert 'total += prices["coffee"]' in said.out
    assert said.lines[-2:] == ["(debug) print total", "2"]
    script = tmp_path / "look.txt"
    script.write_text("# what was it?\nlocals\nprint nothing\n")
    said = cli("debug", "r", "--db", db, "--app", app, "--at", "1", "--script", script)
    assert said.code == 1
    assert "#1  1  " in said.out
    assert said.lines[-1] == "*** NameError: name 'nothing' is not defined"
    assert cli("debug", "r", "--db", db, "--app", app, "--at", "9", "-c", "next").code == 1
    assert cli("debug", "r", "--db", db, "--app", app, "--script", tmp_path / "none").code == 3


async def test_commands_from_standard_input(journal):
    """
    Where it is not a terminal, nobody is asked: lines are read, pdb's, too.
    """
    db, app = journal
    command = [sys.executable, "-m", "durable", "debug", "r", "--db", db, "--app", app]
    lines = "next\npdb\np total\nc\nlast\n"
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "(pdb) 2" in done.stdout
    assert "raised KeyError: 'coffee'" in done.stdout


async def test_an_exported_journal_is_debugged_without_a_file(cli, journal, tmp_path):
    """
    With several runs in it, the one that has code is meant; else it is named.
    """
    db, app = journal
    text = tmp_path / "failed.jsonl"
    assert cli("export", "r", "--tree", "--db", db, "--output", text).code == 0
    assert cli("debug", text, "--app", app, "-c", "last").code == 0
    assert cli("debug", text, "r", "--app", app, "-c", "last").code == 0  # r, and not r~.1
    said = cli("debug", text, "r~.1", "--app", app, "-c", "last")
    assert said.code == 2
    assert "a job is one step" in said.err
    assert cli("debug", text, "x", "--app", app).code == 3


async def test_a_run_of_an_exported_tree_is_named_as_in_a_journal(cli, tmp_path):
    """
    By its exact id, although those of the runs that it started begin with that; by a beginning, or its key.
    """
    app, db, text = tmp_path / "tree.py", tmp_path / "app.db", tmp_path / "tree.jsonl"
    app.write_text(TREE)
    definitions = load_application(str(app)).definitions
    async with Engine(db, definitions, durability="process") as engine:
        assert await engine.run(sys.modules["tree"].root(), id="order-1", key="k-1") == 3
        assert await engine.run(sys.modules["tree"].root(), id="order-10") == 3
    assert cli("export", "order-1", "order-10", "--tree", "--db", db, "--output", text).code == 0
    for named, run_id in [("order-1", "order-1"), ("key:k-1", "order-1"), ("order-1~.0", "order-1~.0")]:
        said = cli("debug", text, named, "--app", app, "-c", "last")
        assert said.code == 0, said
        assert f" {run_id}, version 1, succeeded" in said.lines[0]
    assert "has 2 such runs; name one of: order-1, order-10" in cli("debug", text, "order", "--app", app).err


async def test_what_cannot_be_debugged_says_why(cli, journal, tmp_path):
    """
    No run, no application, a job, JSON.
    """
    db, app = journal
    assert cli("debug", "nobody", "--db", db, "--app", app).code == 3
    assert "a job is one step" in cli("debug", "r~.1", "--db", db, "--app", app).err
    assert "durable trace --json" in cli("debug", "r", "--db", db, "--app", app, "--json").err
    assert cli("debug", "r", "--db", db).code == 2


async def test_a_person_at_a_terminal_has_completion_and_history(journal, tmp_path):
    """
    A real terminal: what is typed is carried out, tab completes, Ctrl-C drops the line, `q` leaves, and the
    lines are kept in the person's own state folder.
    """
    db, app = journal
    state = tmp_path / "state"
    environment = {**os.environ, "XDG_STATE_HOME": str(state), "TERM": "xterm", "COLUMNS": "200"}
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", AT_ITS_TERMINAL, "debug", "r", "--db", db, "--app", app],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
    )  # fmt: skip
    os.close(theirs)
    try:
        read_until(ours, "(debug) ")
        os.write(ours, b"nex\t\n")
        assert "#1  1  " in read_until(ours, "(debug) ")
        os.write(ours, b"goto 12345")
        read_until(ours, "12345")  # echoed: it is reading, so that Ctrl-C meets the line and not what came before
        for _ in range(40):  # CPython's readline misses one that comes between two looks at its input, as people do
            os.write(ours, b"\x03")
            if select.select([ours], [], [], 0.5)[0]:
                break
        read_until(ours, "(debug) ")
        os.write(ours, b"print to\t\n")
        assert "2" in read_until(ours, "(debug) ")
        os.write(ours, b"q\n")
        assert child.wait(timeout=20) == 0
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    kept = state / "durable" / "debug_history"
    assert "print total" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


#: The command line, in a session whose terminal is its own, so that Ctrl-C reaches it.
AT_ITS_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from durable._cli.main import main
sys.exit(main())
"""


def read_until(terminal, text, seconds=20.0):
    """
    What the terminal shows, up to *text*.
    """
    shown = ""
    end = time.monotonic() + seconds
    while text not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"{text!r} did not come; there was:\n{shown}"
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


ASKING = """
from durable import Flow, Return, memo, step, workflow

@step
async def research(question: str) -> str:
    async def ask(text: str) -> dict[str, object]:
        return {"text": text, "usage": {"input_tokens": 50, "output_tokens": 5}}

    for source in ("the library", "a gardener who lies"):
        answer = await memo("model", ask, source)
    return str(answer["text"])

@workflow
async def case(question: str) -> Flow[str]:
    text: str = yield research(question)
    yield Return(text)
"""


async def test_the_answer_of_a_model_that_was_wrong_is_found(cli, tmp_path):
    """
    `memos` shows what was recorded within the step here, with what it used; with a text, all of the run's that hold it.
    """
    app, db = tmp_path / "asking.py", tmp_path / "app.db"
    app.write_text(ASKING)
    definitions = load_application(str(app)).definitions
    async with Engine(db, definitions, durability="process") as engine:
        await engine.run(sys.modules["asking"].case("who?"), id="r")
    said = cli(
        "debug", "r", "--db", db, "--app", app, "-c", "memos", "-c", "last", "-c", "memos", "-c", "memos gardener"
    )
    assert "         2 memos (`memos` shows them)" in said.lines
    first, last, found = (index for index, line in enumerate(said.lines) if line.startswith("(debug) memos"))
    assert said.lines[first + 1] == "0      model: 50 tokens in, 5 out"
    assert said.lines[first + 3].startswith("0      model:2")
    assert said.lines[last + 1] == "no step here has recorded a memo"
    assert said.lines[found + 1 :] == [
        "0      model:2: 50 tokens in, 5 out",
        '    {"text":"a gardener who lies","usage":{"input_tokens":50,"output_tokens":5}}',
    ]
    assert "no memo holds 'sphinx'" in cli("debug", "r", "--db", db, "--app", app, "-c", "memos sphinx").out

"""
What the documents show works: their Python blocks run, and so does every example.
"""

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from durable import command_line
from durable.testing import VirtualClock
from tests.documents import GUIDE, ROOT, broken_links, run_blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples"
EXAMPLE_SECONDS = 200

DOCUMENTS = ["README.md", "CHANGELOG.md"]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(path for room in ("durable", "examples", "tests") for path in (ROOT / room).rglob("*.md"))]
)
BY_THEMSELVES = {
    "census.py": "make demo",  # that takes longer; CI runs it, too
    "service": "tests/examples/test_service.py",  # with shorter trials
    "ingest": "tests/examples/test_ingest.py",  # with fewer files
    "agent": "tests/examples/test_agent.py",
    "shop": "tests/examples/test_shop.py",
    "scale_out": "tests/temporal/test_examples.py",  # it needs a server: `make test-temporal`
}
SCRIPTS = sorted(
    [path.name for path in EXAMPLES.glob("*.py")] + [path.parent.name for path in EXAMPLES.glob("*/__main__.py")]
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_blocks_run(name, tmp_path, monkeypatch):
    """
    Each Python block of a document runs, as a reader would paste them.
    """
    monkeypatch.chdir(tmp_path)
    run_blocks(ROOT / name, monkeypatch)


def test_the_program_of_the_readme_survives_a_kill(tmp_path, monkeypatch, capsys):
    """
    Killed while it sleeps, started again, and walked through: with the output that the page shows.

    It sleeps for long until it is killed, and by a clock that jumps when it is started again.
    """
    program = re.search(r"<!-- file: ride.py -->\n```py\n(.*?)```", README, re.DOTALL)[1]
    killed, paid = re.search(r"kill -9 \$!\n(.*\n)\$ python ride.py\n(.*\n)", README).groups()
    walked = re.search(r"<!-- transcript: ride.py -->\n```console\n(.*?)```", README, re.DOTALL)[1]
    command, _, told = walked.removeprefix("$ durable ").partition("\n")
    assert len([line for line in program.splitlines() if line.strip()]) <= 16
    monkeypatch.chdir(tmp_path)
    Path("ride.py").write_text(program.replace("sleep(10)", "sleep(3600)"), encoding="utf-8")
    with subprocess.Popen([sys.executable, "-u", "ride.py"], stdout=subprocess.PIPE, text=True) as child:
        while not Path("rides.db").exists() or not waiting_for("rides.db"):
            assert child.poll() is None
            time.sleep(0.02)
        child.kill()
        assert child.stdout.read() == killed
    Path("ride.py").write_text(program, encoding="utf-8")
    again = program.replace("[ride])", "[ride], clock=VirtualClock())")
    exec(compile(again, "ride.py", "exec"), {"__name__": "__main__", "VirtualClock": VirtualClock})
    assert capsys.readouterr().out == paid
    assert command_line(shlex.split(command)) == 0
    assert re.sub(r"ride \S+,", "ride ID,", capsys.readouterr().out) == re.sub(r"ride \S+,", "ride ID,", told)


def waiting_for(journal):
    """
    What the runs of a file wait for, once it has become one.
    """
    try:
        with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT kind FROM waits").fetchall()
    except sqlite3.OperationalError:
        return []


def test_the_readme_is_short():
    """
    It is a front page; the guide is the manual.
    """
    assert len(README.splitlines()) <= 220


def test_the_tests_that_the_guide_shows_pass(tmp_path):
    """
    As its reader would have them: a file beside `ride.py`, run by pytest, with no configuration.
    """
    shown = re.search(
        r"<!-- test_ride.py -->\n```py\n(.*?)```", (GUIDE / "testing.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert shown
    assert len(shown[1].strip().splitlines()) < 25
    (tmp_path / "test_ride.py").write_text(shown[1], encoding="utf-8")
    (tmp_path / "ride.py").write_text((EXAMPLES / "ride.py").read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", "-s"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"ride: \d+ sites, .* survived \d+ faults", done.stdout)


def test_the_readme_shows_python():
    """
    The test above has something to run.
    """
    assert "```python\n" in README


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    """
    Every file that a document links to is there, and has the heading that is named.
    """
    assert not broken_links(path)


@pytest.mark.long
@pytest.mark.timeout(EXAMPLE_SECONDS + 15)
@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in BY_THEMSELVES])
def test_example_ends_well(name, tmp_path):
    """
    Each example runs from an empty folder, ends by itself, and exits with 0.
    """
    child = subprocess.Popen(
        [sys.executable, EXAMPLES / name],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that the children it starts can be ended with it
    )
    try:
        output, _ = child.communicate(timeout=EXAMPLE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, _ = child.communicate()
        pytest.fail(f"examples/{name} did not end within {EXAMPLE_SECONDS} s; it printed:\n{output}")
    assert child.returncode == 0, f"examples/{name} exited with {child.returncode}:\n{output}"


def test_the_list_of_examples_is_complete():
    """
    `examples/README.md` has a table row for each example, and none for one that is gone.
    """
    rows = [line for line in (EXAMPLES / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    listed = {name.rstrip("/") for row in rows for name in re.findall(r"\[?`([\w-]+(?:\.py|/))`", row.split("|")[1])}
    assert listed == set(SCRIPTS)


def test_there_are_examples():
    """
    The tests above have something to run.
    """
    assert SCRIPTS

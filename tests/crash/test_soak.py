"""
Random kills of one journal's owner, a few of them; `make crash` kills 50 times and `make soak` 500 times.

Fault: SIGKILL while opening, recovering, working, at named points of a commit; SIGSTOP; a standby that takes over.
What must hold: nothing acknowledged is lost, no transaction is doubled, no step runs again once its outcome was
known, no run is stuck. And the judge must be able to say otherwise: it is given planted bugs, and doctored ledgers.
"""

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import soak_judge

HERE = Path(__file__).parent


def soak(*arguments):
    return subprocess.run(
        [sys.executable, HERE / "soak.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


def figure(output, name):
    return int(re.search(rf"^ *{re.escape(name)} +([\d,]+)$", output, re.MULTILINE)[1].replace(",", ""))


def test_nothing_is_lost_doubled_repeated_or_stuck_on_a_journal_that_is_killed_again_and_again():
    """P1, P2, P4, P6, P7, P8, P10: the short form of `make soak`."""
    done = soak("--kills", 8, "--effects", 1000, "--minutes", 0.8)
    assert done.returncode == 0, done.stdout + done.stderr
    assert figure(done.stdout, "kills (SIGKILL)") >= 8
    assert figure(done.stdout, "of these in transactions") > 100


@pytest.mark.parametrize(
    "bug, kinds",
    [
        # a turn that is lost may leave a step to run again, or a gap before a transaction that was on disk at once
        ("begin_early", ["steps re-run after their recorded end", "stuck runs"]),
        ("wake_nobody", ["stuck runs"]),
    ],
)
def test_a_soak_of_a_broken_engine_fails(bug, kinds):
    """A soak that cannot fail proves nothing."""
    done = soak("--kills", 3, "--effects", 500, "--minutes", 0.8, "--patience", 1, "--bug", bug, "--keep", "no")
    assert done.returncode == 1
    assert sum(figure(done.stdout, kind) for kind in kinds) > 0, done.stdout + done.stderr


def test_a_soak_that_injected_too_little_fails():
    """Faults that were not injected were not survived."""
    done = soak("--kills", 10_000, "--effects", 0, "--minutes", 0.02, "--keep", "no")
    assert done.returncode == 1
    assert "kills" in done.stdout.splitlines()[-2], done.stdout


# --- the judge ---------------------------------------------------------------------------------------------------

TOKENS = [["timed-1", str(place), f"t{place}"] for place in (0, 2)]
STEP = ["effect", 1, "timed-1", "0", 1, "t0", [], "", 10.0]
LATER = ["effect", 1, "timed-1", "2", 2, "t2", [TOKENS[0]], "", 10.1]
RESULT = {"tokens": TOKENS, "signals": []}
END = ["end", "timed-1", "succeeded", RESULT]
CLEAN = [["boot", 1], ["ack", "timed-1", "timed"], STEP, LATER, END]
CHILD = ["effect", 1, "c1", "job", 1, "x", [], "batch-1/0", 10.0]
FINAL = [["timed-1", "timed", "succeeded", RESULT]]
ROWS = [("timed-1", "end", "t2")]


def judged(folder, lines=CLEAN, final=FINAL, rows=ROWS):
    (folder / "ledger").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "final").write_text("".join(json.dumps(line) + "\n" for line in final))
    with closing(sqlite3.connect(folder / "app.db")) as app:
        app.execute("CREATE TABLE app (run TEXT, mark TEXT, token TEXT)")
        app.executemany("INSERT INTO app VALUES (?, ?, ?)", rows)
        app.commit()
    return {fault for fault, found in soak_judge.judge(folder).found.items() if found}


def test_the_judge_has_nothing_against_what_is_right(tmp_path):
    assert judged(tmp_path) == set()


def without(line):
    return [each for each in CLEAN if each is not line]


@pytest.mark.parametrize(
    "fault, what",
    [
        pytest.param("lost", {"final": []}, id="an acknowledged run that is gone"),
        pytest.param("lost", {"rows": []}, id="a row that is missing"),
        pytest.param("lost", {"lines": [*CLEAN, ["cancel", "timed-1"]]}, id="a cancel that did nothing"),
        pytest.param("lost", {"final": [["timed-1", "timed", "failed", "?"]]}, id="a success that is gone"),
        pytest.param("lost", {"lines": [*CLEAN, ["ack", "batch-1", "batch"]]}, id="a batch that is gone"),
        pytest.param("doubled", {"rows": ROWS * 2}, id="a row twice"),
        pytest.param("doubled", {"lines": [*CLEAN, CHILD, [*CHILD[:2], "c2", *CHILD[3:]]]}, id="a child twice"),
        pytest.param(
            "doubled", {"lines": [*CLEAN, ["ack", "a", "key k"], ["ack", "b", "key k"]]}, id="a key with two runs"
        ),
        pytest.param("rerun", {"lines": [*CLEAN[:4], ["boot", 2], [*STEP[:1], 2, *STEP[2:]], END]}, id="a known step"),
        pytest.param("rerun", {"lines": [*CLEAN[:3], STEP, LATER, END]}, id="an attempt twice in one life"),
        pytest.param("rerun", {"lines": [["boot", 0], *CLEAN[1:]]}, id="a life without the file"),
        pytest.param("rerun", {"rows": [("timed-1", "end", "old")]}, id="a row that knows another outcome"),
        pytest.param("stuck", {"lines": without(END), "final": [["timed-1", "timed", "waiting", "?"]]}, id="waiting"),
        pytest.param("stuck", {"lines": without(END), "final": [["timed-1", "timed", "blocked", "?"]]}, id="blocked"),
        pytest.param("wrong", {"lines": without(LATER)}, id="an outcome that nobody made"),
        pytest.param("wrong", {"lines": [*CLEAN[:3], [*LATER[:4], 1, *LATER[5:8], 10.01], END]}, id="an early timer"),
        pytest.param("wrong", {"lines": without(END), "final": [["timed-1", "timed", "failed", "?"]]}, id="a failure"),
    ],
)
def test_the_judge_convicts(tmp_path, fault, what):
    assert fault in judged(tmp_path, **what)

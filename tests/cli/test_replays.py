"""
`durable replay`, `durable trace` and `durable check`: today's code over recorded runs.
"""

import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import pytest

from durable import Engine
from durable._cli.applications import load_application

pytestmark = pytest.mark.anyio

BEFORE = """
from durable import Flow, Return, gather, job, patched, race, sleep, step, timeout, wait_for, workflow

@step
async def reserve(n: int) -> int:
    return n + 1

@step
async def charge(n: int) -> int:
    if n > 100:
        raise ValueError(f"{n} is too much")
    return n * 10

@step
async def audit(n: int) -> None: ...

@job
async def mail(text: str) -> str:
    return f"mailed {text}"

async def reserve_twice(n: int) -> int:
    first = await reserve(n)
    return await reserve(first)

@workflow
async def order(n: int) -> Flow[str]:
    reserved: int = yield reserve(n)
    charged: int = yield charge(reserved)
    parts: list = yield gather(reserve_twice(charged), mail("hello"))
    yield race(wait_for("go", str), sleep(3600))
    word: str = yield wait_for("word", str)
    yield Return(f"{parts} {word}")
"""
EDITED = BEFORE.replace("    charged: int", "    yield audit(reserved)\n    charged: int")
PATCHED = BEFORE.replace(
    "    charged: int", "    if patched('audit'):\n        yield audit(reserved)\n    charged: int"
)
CAUGHT = BEFORE.replace(
    "    charged: int = yield charge(reserved)\n",
    "    charged = 5\n    try:\n        charged = yield charge(reserved)\n    except ValueError:\n        pass\n",
)
OTHER_ARGUMENT = BEFORE.replace("yield charge(reserved)", "yield charge(reserved + 1)")


@pytest.fixture
def app(tmp_path):
    """
    Writes an application to a file of its own; its path.
    """

    def write(name, text):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return path

    return write


@pytest.fixture
async def recorded(tmp_db, app, reached):
    """
    A journal: one run that ended, one that waits, one that failed. (path, application, ids by status)
    """
    path = app("shop_before", BEFORE)
    definitions = load_application(str(path)).definitions
    module = sys.modules["shop_before"]
    runs = {}
    async with Engine(tmp_db, definitions, durability="process") as engine:
        runs["succeeded"] = await engine.start(module.order(1), id="ended")
        await runs["succeeded"].signal("go", "x")
        await runs["succeeded"].signal("word", "done")
        assert await runs["succeeded"].result(5) == "[[22, 'mailed hello'] done]"[1:-1]
        runs["waiting"] = await engine.start(module.order(2), id="waits")
        await runs["waiting"].signal("go", "x")
        await reached(runs["waiting"], "waiting")
        runs["failed"] = await engine.start(module.order(500), id="failed")
        await reached(runs["failed"], "failed")
    return tmp_db, path


# --- replay --------------------------------------------------------------------------------------------


async def test_replay_of_unchanged_code_is_the_same(cli, recorded):
    """
    Every run, however it stands, is what today's code does; exit code 0.
    """
    db, app = recorded
    said = cli("replay", "ended", "waits", "failed", "--db", db, "--app", app)
    assert said.code == 0, said
    assert [line.split()[:3] for line in said.lines] == [[run, "order", "same"] for run in ("ended", "waits", "failed")]


async def test_replay_says_how_changed_code_diverges(cli, recorded, app):
    """
    The report with both places, and today's line; exit code 1; the same for programs.
    """
    db, _ = recorded
    edited = app("shop_edited", EDITED)
    said = cli("replay", "waits", "--db", db, "--app", edited)
    assert said.code == 1
    assert "diverged" in said.lines[0]
    assert "step 'audit' was inserted before step 'charge'" in said.out
    assert "| yield audit(reserved)" in said.out
    (plain,) = cli("replay", "waits", "--db", db, "--app", edited, "--json").values
    assert (plain["verdict"], plain["position"], plain["change"]) == ("diverged", "1", "inserted")
    with closing(sqlite3.connect(db)) as conn:  # nobody was blocked by looking
        assert conn.execute("SELECT status FROM runs WHERE run_id = 'waits'").fetchone() == ("waiting",)


async def test_replay_of_an_exported_journal_needs_no_file(cli, recorded, tmp_path):
    """
    A golden journal is replayed from its text, beside runs of a journal or alone.
    """
    db, app = recorded
    text = tmp_path / "order.jsonl"
    assert cli("export", "ended", "--tree", "--db", db, "--output", text).code == 0
    said = cli("replay", text, "--app", app)
    assert (said.code, len(said.lines)) == (0, 1), said
    assert cli("replay", tmp_path / "none.jsonl", "--app", app).code == 3


async def test_a_failed_run_whose_cause_is_mended_goes_further(cli, recorded, app):
    """
    Code that catches what made the run fail would go on: told, and no finding.
    """
    db, _ = recorded
    said = cli("replay", "failed", "--db", db, "--app", app("shop_caught", CAUGHT))
    assert said.code == 0, said
    assert "further" in said.lines[0]
    assert "continues and asks for gather of 2" in said.out


async def test_other_arguments_are_told_and_no_finding(cli, recorded, app):
    """
    Recorded outcomes stand whatever is passed today.
    """
    db, _ = recorded
    changed = app("shop_arguments", OTHER_ARGUMENT)
    said = cli("replay", "ended", "--db", db, "--app", changed)
    assert said.code == 0
    assert "other arguments than recorded at 1" in said.out
    loose = cli("check", "--all", "--db", db, "--app", changed)
    assert loose.code == 0
    assert "other arguments than recorded at 1" in loose.out


async def test_a_strict_check_finds_other_arguments(cli, recorded, app):
    """
    An error with step, position and line; the code that recorded them has none.
    """
    db, before = recorded
    changed = app("shop_strict", OTHER_ARGUMENT)
    assert cli("check", "--all", "--strict", "--db", db, "--app", before).code == 0
    said = cli("check", "--all", "--strict", "--db", db, "--app", changed)
    assert said.code == 1
    for words in ("step 'charge'", "other arguments than recorded", "shop_strict.py:"):
        assert words in said.out
    found = cli("check", "ended", "--strict", "--json", "--db", db, "--app", changed).values[0]
    assert (found["verdict"], found["position"], found["change"]) == ("diverged", "1", "arguments")


async def test_check_says_the_same_of_several_runs_once(cli, recorded, app):
    """
    One report, the runs of which it is to be said, and how many more; for programs one object a run.
    """
    db, before = recorded
    async with Engine(db, load_application(str(before)).definitions, durability="process") as engine:
        for number in range(5):
            await engine.start(sys.modules["shop_before"].order(2), id=f"more-{number}")
        await engine.idle()
    edited = app("shop_grouped", EDITED)
    said = cli("check", "--db", db, "--workflow", "order", "--app", edited)
    assert said.code == 1
    first, *rest = [line for line in said.lines if line.startswith("diverged: ")]
    assert rest == []
    assert (
        first
        == "diverged: order more-4 (version 1, waiting), and the same of 5 more runs: more-3, more-2, more-1 and 2 more"
    )
    assert said.out.count("It looks as if") == 1
    assert len(cli("check", "--db", db, "--workflow", "order", "--app", edited, "--json").values) == 7
    other = app("shop_notes", OTHER_ARGUMENT)
    (note,) = [line for line in cli("check", "--db", db, "--app", other).lines if line.startswith("note: order ")]
    assert note.startswith("note: order more-4, more-3, more-2 and 3 more: other arguments than recorded at 1")


def test_lint_names_lines_and_needs_no_journal(cli, app):
    """
    One line each, as compilers do; exit code 1. Of sound code, 0.
    """
    moody = app("shop_moody", BEFORE.replace("yield charge(reserved)", "yield charge(hash('x'))"))
    said = cli("check", "--lint", "--app", moody)
    assert said.code == 1
    line, summary = said.lines
    assert "shop_moody.py:28: hash() in workflow 'order': use " in line
    assert summary == "read 1 workflow: 1 finding"
    found, summary = cli("check", "--lint", "--json", "--app", moody).values
    assert (found["lint"]["line"], found["lint"]["found"]) == (28, "hash()")
    assert summary == {"linted": 1, "findings": 1, "unread": []}
    assert cli("check", "--lint", "--app", app("shop_sound", BEFORE)).code == 0


async def test_lint_goes_with_a_check_of_runs(cli, recorded, app):
    """
    With a journal or files, both are looked at, and both count.
    """
    db, sound = recorded
    both = cli("check", "--lint", "--db", db, "--app", sound)
    assert (both.code, len(both.lines)) == (0, 2)
    moody = app("shop_moody_too", BEFORE.replace("yield charge(reserved)", "yield charge(reserved + id(1) * 0)"))
    assert cli("check", "--lint", "--db", db, "--app", moody).code == 1


async def test_what_cannot_be_replayed_says_why(cli, recorded, tmp_path, app):
    """
    A job has no code; a definition may be missing; without a run there is nothing to do.
    """
    db, shop = recorded
    assert "a job is one step" in cli("replay", "ended~.2.1", "--db", db, "--app", shop).err
    empty = app("shop_empty", "from durable import job\n@job\nasync def other() -> None: ...\n")
    said = cli("replay", "ended", "--db", db, "--app", empty)
    assert said.code == 2
    assert "'order', which is not among other" in said.err
    assert cli("replay", "--db", db, "--app", shop).code == 3
    assert cli("replay", "nobody", "--db", db, "--app", shop).code == 3


async def test_a_damaged_history_is_a_finding(cli, recorded):
    """
    What does not match its checksum is named, and the others are replayed all the same.
    """
    db, app = recorded
    with closing(sqlite3.connect(db)) as conn:
        conn.execute("UPDATE durable_events SET body = '[]' WHERE run = 1 AND seq = 2")
        conn.commit()
    said = cli("replay", "ended", "waits", "--db", db, "--app", app)
    assert said.code == 1
    assert "event 2" in said.lines[0]
    assert "same" in said.lines[1]
    plain = cli("replay", "ended", "--db", db, "--app", app, "--json").values
    assert plain[0]["verdict"] == "unreadable"
    checked = cli("check", "--all", "--db", db, "--app", app)
    assert checked.code == 1
    assert "unreadable: order ended" in checked.out


# --- trace ---------------------------------------------------------------------------------------------


async def test_trace_shows_each_stop_with_its_line_outcome_and_locals(cli, recorded):
    """
    In the order of the replay: the line of code, what it asked for, what came of it, and what changed.
    """
    db, app = recorded
    said = cli("trace", "waits", "--db", db, "--app", app)
    assert said.code == 0
    text = said.out
    for part in (
        "order waits, version 1, waiting",
        "#0    0        shop_before.py:27    reserved: int = yield reserve(n)",
        "step 'reserve' -> 3",
        "reserved = 3",
        "2.1      child 'mail' -> \"mailed hello\"",
        "first = 31",
        "returned 32",
        "wait_for 'go' -> \"x\"",
        "wait_for 'word': still open",
    ):
        assert part in text, f"{part!r} is not in\n{text}"
    assert "step 'charge' failed: ValueError: 501 is too much" in cli("trace", "failed", "--db", db, "--app", app).out


async def test_trace_for_programs_has_one_object_a_command(cli, recorded):
    """
    Position, place, event and outcome of each command, members of groups included.
    """
    db, app = recorded
    found = cli("trace", "ended", "--db", db, "--app", app, "--json").values
    by_position = {each["position"]: each for each in found}
    assert by_position["1"]["value"] == "20"
    assert by_position["2.1"]["outcome"] == "ChildSucceeded"
    assert by_position["2.0.0"]["strand"] == "2.0"
    assert by_position["1"]["changed"] == {"reserved": "2"}
    assert by_position["5"]["command"].startswith("returned")


async def test_trace_of_changed_code_ends_with_the_report(cli, recorded, app):
    """
    What was still alike is traced; then comes the divergence.
    """
    db, _ = recorded
    said = cli("trace", "waits", "--db", db, "--app", app("shop_traced", EDITED))
    assert said.code == 1
    assert "step 'reserve' -> 3" in said.out
    assert said.lines[-3].startswith("run 'waits' diverged from its journal at command 1")


async def test_a_value_whose_repr_raises_does_not_end_the_trace(cli, tmp_db, app):
    """
    Users' own `__repr__` may fail; the trace says so in its place.
    """
    path = app("shop_repr", BEFORE.replace("    reserved: int", "    bad = Bad()\n    reserved: int") + BAD)
    definitions = load_application(str(path)).definitions
    async with Engine(tmp_db, definitions, durability="process") as engine:
        await engine.start(sys.modules["shop_repr"].order(1), id="r")
    said = cli("trace", "r", "--db", tmp_db, "--app", path)
    assert "bad = <Bad: its repr raised ZeroDivisionError>" in said.out


BAD = "\nclass Bad:\n    def __repr__(self):\n        return str(1 / 0)\n"


# --- check ---------------------------------------------------------------------------------------------


async def test_check_replays_open_runs_and_with_all_every_run(cli, recorded):
    """
    Unchanged code: nothing found, and how many were looked at.
    """
    db, app = recorded
    said = cli("check", "--db", db, "--app", app)
    assert (said.code, said.lines) == (0, ["checked 1 runs: 1 same"])
    assert cli("check", "--all", "--db", db, "--app", app).lines == ["checked 5 runs: 5 same"]
    assert cli("check", "--status", "failed", "--db", db, "--app", app).lines == ["checked 1 runs: 1 same"]


async def test_check_reports_what_would_break_and_patched_mends_it(cli, recorded, app):
    """
    The edit is a finding with its report and exit code 1; guarded by `patched`, it is none.
    """
    db, _ = recorded
    said = cli("check", "--db", db, "--app", app("shop_check", EDITED))
    assert said.code == 1
    assert said.lines[0] == "diverged: order waits (version 1, waiting)"
    assert "step 'audit' was inserted before step 'charge'" in said.out
    assert said.lines[-1] == "checked 1 runs: 1 diverged"
    patched = app("shop_patched", PATCHED)
    assert cli("check", "--all", "--db", db, "--app", patched).code == 0
    finding, summary = cli("check", "--db", db, "--app", sys.modules["shop_check"].__file__, "--json").values
    assert (finding["verdict"], finding["change"], finding["recorded"]) == ("diverged", "inserted", "step 'charge'")
    assert summary == {"checked": 1, "verdicts": {"diverged": 1}, "ok": False}


async def test_check_says_which_old_branches_can_be_deleted(cli, recorded, app, engines):
    """
    An open run from before the change needs the old branch; once it has ended, nobody does.
    """
    db, _ = recorded
    patched = app("shop_old_branch", PATCHED)
    said = cli("check", "--patches", "--db", db, "--app", patched)
    assert "patched('audit'): the old branch is needed by 1 open runs: waits" in said.out
    async with Engine(db, load_application(str(patched)).definitions, durability="process") as engine:
        await engine.get("waits").signal("word", "now")
        await engine.get("waits").result(5)
        new = await engine.start(sys.modules["shop_old_branch"].order(3), id="new")
        await new.signal("go", "x")
    said = cli("check", "--patches", "--db", db, "--app", patched)
    assert "patched('audit'): no open run needs the old branch: it can be deleted" in said.out
    assert cli("check", "--patches", "--db", db, "--app", patched, "--json").values[0] == {
        "patch": "audit",
        "needed_by": [],
    }


async def test_check_of_code_without_patches_says_so(cli, recorded):
    """
    No silence that could be taken for an answer.
    """
    db, app = recorded
    assert "no run that was checked came to a patched()" in cli("check", "--patches", "--db", db, "--app", app).out


async def test_a_missing_definition_is_a_finding(cli, recorded, app):
    """
    Runs that nothing could execute are what a deploy must not leave behind.
    """
    db, _ = recorded
    empty = app("shop_gone", "from durable import job\n@job\nasync def mail(text: str) -> str: ...\n")
    said = cli("check", "--db", db, "--app", empty)
    assert said.code == 1
    assert "no workflow called 'order' is among the definitions" in said.out


def test_replays_in_a_process_of_their_own(recorded_file):
    """
    As CI would call it: by module, from any folder.
    """
    db, app = recorded_file
    command = [sys.executable, "-m", "durable", "check", "--all", "--db", db, "--app", app]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "checked 3 runs: 3 same", "")


@pytest.fixture
def recorded_file(tmp_path):
    """
    A journal that a process of its own recorded, and the application.
    """
    app, db = tmp_path / "shop_script.py", tmp_path / "shop.db"
    app.write_text(BEFORE)
    script = f"""
        import asyncio, logging, structlog
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        from durable import Engine
        import shop_script

        async def main():
            async with Engine({str(db)!r}, [shop_script], durability="process") as engine:
                run = await engine.start(shop_script.order(1), id="a")
                while await run.status() != "waiting":
                    await asyncio.sleep(0.002)
                failed = await engine.start(shop_script.order(500), id="b")
                while await failed.status() != "failed":
                    await asyncio.sleep(0.002)

        asyncio.run(main())
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, cwd=tmp_path)
    return db, app

"""
`durable export`, `import`, `backup` and `prune`: runs and files that come and go.
"""

import asyncio
import io
import json
import os
import sqlite3
import stat
import subprocess
import sys

import pytest

from durable import Client, Engine, Flow, Return, continue_as, job, read_histories, step, wait_for, workflow
from durable._cli.terminal import asking

pytestmark = pytest.mark.anyio


@step
async def double(n: int) -> int:
    return 2 * n


@workflow(labels={"team": "ride"})
async def ask(n: int) -> Flow[str]:
    yield double(n)
    yield Return((yield wait_for("go", str)))


@workflow
async def parent(n: int) -> Flow[int]:
    yield Return((yield half(n)))


@job
async def half(n: int) -> int:
    return n // 2


@workflow
async def loop(n: int) -> Flow[int]:
    if n:
        yield continue_as(loop(n - 1))
    yield Return(n)


ALL = [ask, parent, half, loop]


def hidden(where):
    return "****" if isinstance(where.value, str) else where.value


@pytest.fixture
async def journal(engines, reached):
    """
    A file with a waiting run, and one that ended with its child; its engine is closed.
    """
    engine = await engines.file(*ALL)
    await engine.run(parent(8), id="p-1")
    run = await engine.start(ask(1), id="w-1", key="4111")
    await reached(run, "waiting")
    await engine.aclose()
    return str(engine.path)


@pytest.fixture
def call(cli):
    """
    As `cli`, in a thread: commands have an event loop of their own. Exit code, output, errors.
    """

    async def called(*arguments):
        said = await asyncio.to_thread(cli, *arguments)
        return said.code, said.out, said.err

    return called


def runs_in(text):
    return [json.loads(line)["run"]["run_id"] for line in text.splitlines() if line.startswith('{"run"')]


# --- export, import ----------------------------------------------------------------------------------


async def test_export_writes_lines_to_standard_output(journal, call):
    """
    So that it can be piped: the header, then the runs; oldest first, however they were named.
    """
    code, out, _ = await call("export", "w-1", "key:4111", "p-1", "--db", journal)
    assert code == 0
    assert json.loads(out.splitlines()[0])["durable"] == "journal export"
    assert runs_in(out) == ["p-1", "w-1"]


async def test_export_takes_filters_or_all(journal, call):
    """
    And says so where neither, or both, were given.
    """
    assert runs_in((await call("export", "--status", "open", "--db", journal))[1]) == ["w-1"]
    assert runs_in((await call("export", "--label", "team=ride", "--db", journal))[1]) == ["w-1"]
    assert runs_in((await call("export", "--all", "--db", journal))[1]) == ["p-1", "p-1~.0", "w-1"]
    code, _, err = await call("export", "--db", journal)
    assert code == 2
    assert "which runs? Name them" in err
    code, _, err = await call("export", "p-1", "--all", "--db", journal)
    assert code == 2
    assert "not both" in err
    code, _, err = await call("export", "nobody", "--db", journal)
    assert code == 3


async def test_export_with_tree_to_a_file_that_is_not_there_yet(journal, call, tmp_path):
    """
    Children come along; an existing file is refused untouched.
    """
    target = tmp_path / "p.jsonl"
    code, out, _ = await call("export", "p-1", "--tree", "--output", target, "--db", journal)
    assert (code, out) == (0, f"2 runs exported to {target}\n")
    assert [each.run.run_id for each in read_histories(target)] == ["p-1", "p-1~.0"]
    before = target.read_bytes()
    code, _, err = await call("export", "p-1", "--output", target, "--db", journal)
    assert code == 2
    assert "exists already" in err
    assert target.read_bytes() == before
    code, out, _ = await call("export", "w-1", "--output", tmp_path / "w.jsonl", "--db", journal, "--json")
    assert json.loads(out) == {"path": str(tmp_path / "w.jsonl"), "runs": 1}


async def test_export_redacts_with_a_function_of_the_application(journal, call):
    """
    Named as MODULE:NAME; what cannot be imported is told before anything is read.
    """
    sys.modules["privacy_of_test"] = sys.modules[__name__]
    code, out, _ = await call("export", "w-1", "--db", journal, "--redact", "privacy_of_test:hidden")
    assert code == 0
    assert "4111" not in out
    assert json.loads(out.splitlines()[0])["redacted"] is True
    for text, said in (
        ("hidden", "give MODULE:NAME"),
        ("nowhere_at_all:x", "no module is called 'nowhere_at_all'"),
        ("privacy_of_test:nobody", "has no 'nobody'"),
        ("privacy_of_test:ALL", "is not a function, but list"),
    ):
        code, _, err = await call("export", "w-1", "--db", journal, "--redact", text)
        assert code == 2
        assert said in err


async def test_import_into_a_new_journal_and_again(journal, call, tmp_path):
    """
    It is made if that is asked for; open runs are paused; a repetition changes nothing.
    """
    await call("export", "--all", "--output", tmp_path / "all.jsonl", "--db", journal)
    new = str(tmp_path / "new.db")
    code, _, err = await call("import", tmp_path / "all.jsonl", "--db", new)
    assert code == 3
    assert "--create makes it" in err
    code, out, _ = await call("import", tmp_path / "all.jsonl", "--db", new, "--create", "--dry-run")
    assert (code, out.splitlines()[0]) == (0, "3 runs would be imported")
    assert not os.path.exists(new)
    code, out, _ = await call("import", tmp_path / "all.jsonl", "--db", new, "--create")
    assert code == 0
    assert out.splitlines() == [
        "3 runs imported",
        "1 run had not ended: paused here, until `durable resume` resumes them",
    ]
    code, out, _ = await call("import", tmp_path / "all.jsonl", tmp_path / "all.jsonl", "--db", new)
    assert (code, out) == (0, "0 runs imported, 3 already here\n")
    code, out, _ = await call("import", tmp_path / "all.jsonl", "--db", new, "--dry-run", "--json")
    assert json.loads(out) == {"imported": [], "present": ["p-1", "p-1~.0", "w-1"], "dry_run": True}
    async with Engine(new, ALL, durability="process") as engine:
        run = engine.get("w-1")
        await run.resume()
        await run.signal("go", "on")
        assert await run.result(timeout=5) == "on"


async def test_import_goes_to_the_engine_that_has_the_file(journal, call, tmp_path):
    """
    While it runs, from another process or thread.
    """
    await call("export", "p-1", "--output", tmp_path / "p.jsonl", "--db", journal)
    async with Engine(tmp_path / "live.db", ALL, durability="process") as engine:
        _, out, _ = await call("import", tmp_path / "p.jsonl", "--db", engine.path, "--json")
        assert json.loads(out) == {"imported": ["p-1"], "present": [], "dry_run": False}
        assert await engine.get("p-1").result() == 4


async def test_import_reads_standard_input(journal, call, tmp_path, monkeypatch):
    """
    ``durable export ... | durable import -``.
    """
    text = (await call("export", "p-1", "--db", journal))[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code, out, _ = await call("import", "-", "--db", tmp_path / "new.db", "--create")
    assert (code, out) == (0, "1 run imported\n")


async def test_import_says_what_is_wrong_with_a_file(journal, call, tmp_path):
    """
    Which file, which line, and what; exit codes as documented.
    """
    code, _, err = await call("import", tmp_path / "gone.jsonl", "--db", journal)
    assert (code, err) == (3, f"durable import: there is no file {tmp_path / 'gone.jsonl'}\n")
    (tmp_path / "bad.jsonl").write_bytes(b"\x00\xff")
    code, _, err = await call("import", tmp_path / "bad.jsonl", "--db", journal)
    assert code == 1
    assert err.startswith(f"durable import: {tmp_path / 'bad.jsonl'}, line 1: expected text in UTF-8")
    code, _, err = await call("import", tmp_path / "bad.jsonl")
    assert code == 2
    assert "which journal?" in err


# --- backup ------------------------------------------------------------------------------------------


async def test_backup_copies_a_journal_in_use(engines, call, tmp_path):
    """
    The copy opens by itself, is nobody else's to read, and overwrites nothing.
    """
    engine = await engines.file(*ALL)
    await engine.run(parent(8), id="p-1")
    target = tmp_path / "copy.db"
    code, out, _ = await call("backup", target, "--db", engine.path)
    assert code == 0
    assert out == f"copied to {target} and verified: {target.stat().st_size:,} bytes\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    async with Client(target) as client:
        assert await client.get("p-1").result() == 4
    code, _, err = await call("backup", target, "--db", engine.path)
    assert code == 2
    assert "exists already" in err
    code, out, _ = await call("backup", tmp_path / "second.db", "--db", engine.path, "--json")
    assert json.loads(out)["path"] == str(tmp_path / "second.db")
    code, _, err = await call("backup", tmp_path / "no" / "folder.db", "--db", engine.path)
    assert code == 2


# --- prune -------------------------------------------------------------------------------------------


async def test_prune_counts_asks_and_deletes(engines, call, tmp_path, monkeypatch):
    """
    As many as it said; open runs, and what is younger, stay.
    """
    engine = await engines.file(*ALL)
    await engine.run(parent(8), id="p-1")
    await engine.run(loop(2), id="l")
    await engine.start(ask(1), id="w-1")
    async with engine.batch(id="b") as batch:
        batch.add(half(4))
    await batch.wait()
    db = engine.path
    code, out, _ = await call("prune", "--older-than", "1h", "--db", db)
    assert code == 0
    assert out.startswith("no runs to delete that ended before")
    code, out, _ = await call("prune", "--older-than", "0s", "--db", db, "--dry-run")
    assert (code, out.split(" that")[0], out.split()[-3:]) == (0, "6 runs", ["would", "be", "deleted"])
    code, _, err = await call("prune", "--older-than", "0s", "--db", db)
    assert code == 2
    assert "repeat it with --yes" in err
    assert len([info async for info in engine.runs()]) == 7
    code, out, _ = await call("prune", "--older-than", "0s", "--db", db, "--yes", "--json")
    assert json.loads(out)["runs"] == 6
    assert [info.run_id async for info in engine.runs()] == ["w-1"]


@pytest.mark.parametrize("answer, agreed", [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)])
async def test_a_person_is_asked_and_anything_but_yes_is_a_no(journal, call, monkeypatch, answer, agreed):
    """
    The question says how many runs of which file.
    """

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(asking.sys, "stdin", Terminal(answer))
    code, out, err = await call("prune", "--older-than", "0s", "--db", journal)
    assert code == 0
    assert err.startswith("Delete 2 runs that ended before")
    assert f"from {journal}? [y/N]" in err
    assert ("nothing was deleted" in out) is not agreed
    left = sqlite3.connect(journal).execute("SELECT count(*) FROM durable_runs").fetchone()[0]
    assert left == (1 if agreed else 3)


async def test_scrub_and_a_secure_prune_write_the_file_anew(engines, call):
    """
    Beside the engine, which does it; the sizes are said.
    """
    engine = await engines.file(*ALL)
    await engine.run(parent(8), id="p-1")
    db = engine.path
    code, out, _ = await call("scrub", "--db", db)
    assert (code, out.split(":")[0]) == (0, "written anew")
    code, out, _ = await call("prune", "--older-than", "0s", "--db", db, "--yes", "--secure", "--json")
    assert (code, json.loads(out)["runs"]) == (0, 2)
    await engine.aclose()
    code, out, _ = await call("scrub", "--db", db, "--json")
    assert (code, set(json.loads(out))) == (0, {"bytes", "bytes_before"})
    with open(db, "rb") as file:
        assert b"p-1" not in file.read()


# --- all ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["export", "import", "backup", "prune", "scrub"])
async def test_help_says_what_it_is_for_with_an_example(call, command):
    """
    One line, the options, and something to copy.
    """
    code, out, _ = await call(command, "--help")
    assert code == 0
    assert f"  durable {command} " in out
    assert "example" in out


async def test_export_needs_no_asyncio(journal):
    """
    What only reads answers without an event loop, or the application.
    """
    code = (
        "import sys; from durable._cli.main import main; "
        f"main(['export', '--all', '--db', {journal!r}]); "
        f"main(['backup', {journal + '.copy'!r}, '--db', {journal!r}]); "
        "sys.exit(' '.join(name for name in ('asyncio', 'anyio', 'structlog', 'aiosqlite') if name in sys.modules))"
    )
    found = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stderr.strip() == ""
    assert "verified" in found.stdout

"""
One file: the ride application, frozen, is killed and goes on, and its journal is everybody's.

The programs are built once, side by side, as a user would: `pyinstaller --onefile`, and our hook does the rest.
They run from an empty folder, and with an environment that knows nothing of this checkout.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "single_binary"
INGEST = EXAMPLE.with_name("ingest")
BUILD_SECONDS = 240  # about 15 on two free cores
SECONDS = 60  # a call: unpacking takes 0.3 of one

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 120)

SOLO = """
import asyncio
import sys

import durable.web
from attrs import frozen
from crunching import Sum, crunch

from durable import Engine, Flow, Return, RunFailedError, call, command_line, step, workflow

class SoldOut(Exception):
    pass

@frozen
class Seat:
    row: int

@frozen
class Place:
    number: int

def choose(row: int) -> Seat | Place:
    return Seat(row)

@step
async def reserve(seat: Seat) -> None:
    raise SoldOut(seat.row, "sold out")

@step(process=True)
def here(numbers: list[int]) -> int:
    return sum(numbers)

@workflow
async def show(row: int) -> Flow[None]:
    total: Sum = yield crunch([1, row])
    assert total == Sum(1 + row)
    seat: Seat | Place = yield call(choose, row)
    assert seat == Seat(row)
    try:
        yield reserve(seat)
    except SoldOut as error:
        assert error.args == (row, "sold out")
    yield reserve(seat)

@workflow
async def locally() -> Flow[int]:
    total: int = yield here([1, 2])
    yield Return(total)

async def main(path: str) -> None:
    async with Engine(path, [show, locally]) as engine:
        for key, op in {"show": show(7), "locally": locally()}.items():
            run = await engine.start(op, key=key)
            try:
                print(await run.result())
            except RunFailedError as error:
                print(type(error.__cause__).__name__, error.__cause__)

if __name__ == "__main__":
    if sys.argv[1] == "durable":
        sys.exit(command_line(sys.argv[2:]))
    asyncio.run(main(sys.argv[1]))
"""
CRUNCHING = """
from attrs import frozen
from durable import step, workflow

@frozen
class Sum:
    total: int

@step(process=True)
def crunch(numbers: list[int]) -> Sum:
    return Sum(sum(numbers))

@workflow
async def beside(numbers: list[int]) -> Sum:
    return await crunch(numbers)
"""


# --- building and running -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """
    The folder of the frozen programs, `rides`, `solo` and `ingestd`, and of the latter's source.
    """
    folder = tmp_path_factory.mktemp("frozen")
    (folder / "solo.py").write_text(SOLO)
    (folder / "crunching.py").write_text(CRUNCHING)
    programs = {"rides": EXAMPLE / "main.py", "solo": folder / "solo.py", "ingestd": INGEST / "ingestd.py"}
    builds = []
    for name, script in programs.items():
        options = ["--name", name, "--distpath", folder, "--workpath", folder / name[:1], "--specpath", folder]
        log = (folder / f"{name}.log").open("w+")
        build = subprocess.Popen(
            [sys.executable, "-m", "PyInstaller", "--onefile", "--noconfirm", *options, script],
            env={**os.environ, "PYINSTALLER_CONFIG_DIR": str(folder / f"cache-{name}")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        builds.append((name, build, log))
    failed = []
    for name, build, log in builds:
        with log:
            try:
                build.wait(BUILD_SECONDS)
            except subprocess.TimeoutExpired:
                build.kill()
                build.wait()
            if build.returncode:
                log.seek(0)
                failed.append(f"{name}: PyInstaller ended with {build.returncode}:\n{log.read()[-8_000:]}")
    assert not failed, "\n".join(failed)
    return folder


class Program:
    """
    A program and its journal; nothing of our environment reaches a frozen one.
    """

    def __init__(self, command, folder, journal):
        self.command, self.folder, self.journal = [str(each) for each in command], folder, str(journal)
        self.servers = []
        folder.mkdir(exist_ok=True)

    @property
    def environment(self):
        return {"TMPDIR": str(self.folder)} if self.command[0] != sys.executable else dict(os.environ)

    def call(self, *arguments, code=0, given=None):
        """What it prints; it must end with *code*."""
        try:
            done = subprocess.run(
                [*self.command, *arguments],
                check=False,
                cwd=self.folder,
                env=self.environment,
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            pytest.fail(f"{arguments} did not end within {SECONDS} s: {error.stdout!r} {error.stderr!r}")
        said = f"{arguments} ended with {done.returncode}, and printed:\n{done.stdout}\n{done.stderr}"
        assert done.returncode == code, said
        return done.stdout if code == 0 else f"{done.stdout}{done.stderr}"

    def durable(self, command, *arguments, **options):
        """The command line, on its journal."""
        return self.call("durable", command, *arguments, "--db", self.journal, **options)

    def lines(self, command, *arguments):
        """What a command says for programs."""
        return [json.loads(line) for line in self.durable(command, *arguments, "--json").splitlines()]

    def serve(self):
        """A process that executes rides; returns once it does."""
        server = self.start("serve", "--db", self.journal)
        line = server.stdout.readline()
        assert line.startswith("serving "), f"{line!r}, {server.poll()}, {self.complaints()}"
        return server

    def start(self, *arguments):
        """A process of its own, until the test ends."""
        log = (self.folder / f"serve-{len(self.servers)}.log").open("w+")
        server = subprocess.Popen(
            [*self.command, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # a frozen file is two processes: what kills it kills both
        )
        self.servers.append((server, log))
        return server

    def complaints(self):
        """What its servers wrote beside their output."""
        texts = []
        for _, log in self.servers:
            log.seek(0)
            texts.append(log.read())
        return "\n".join(texts)

    def end(self):
        """Kill what is left."""
        for server, log in self.servers:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(SECONDS)
            server.stdout.close()
            log.close()


def ended(server, how):
    """
    The exit code after the signal *how*: SIGKILL for its group, others for the process that was started.
    """
    if how == signal.SIGKILL:
        os.killpg(server.pid, how)
    else:
        server.send_signal(how)
    return server.wait(SECONDS)


@pytest.fixture
def program(built, tmp_path):
    """
    Makes programs, and ends what they left.
    """
    made = []

    def make(name, *, source=False, journal="app.db", folder="empty"):
        script = {"rides": EXAMPLE / "main.py", "solo": built / "solo.py"}[name]
        command = [sys.executable, script] if source else [built / name]
        made.append(Program(command, tmp_path / folder, tmp_path / journal))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def payments(monkeypatch):
    """
    The example's payment service: its address, and the charges that wait for an answer.
    """
    monkeypatch.syspath_prepend(EXAMPLE)
    import demo

    with demo.payment_service() as service:
        yield service


def rides_in(journal):
    """
    The application's own table.
    """
    with closing(sqlite3.connect(journal)) as connection:
        return connection.execute("SELECT user_id, pickup, state FROM rides").fetchall()


# --- the ride -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first, then", [(False, False), (False, True)])
def test_killed_while_a_ride_is_paid(program, payments, tmp_path, first, then):
    """
    The second attempt to charge is cut off by SIGKILL. Another process, in another folder, frozen or from source as
    the first one was or not, asks again with the same key; and nothing that had ended is done again.
    """
    url, charges = payments
    before = program("rides", source=first)
    server = before.serve()
    run_id = before.call("book", "42", "Main St 1", "--payments", url, "--key", "click", "--db", before.journal).strip()
    again = before.call("book", "42", "Main St 1", "--payments", url, "--key", "click", "--db", before.journal).strip()
    assert again == run_id
    unlucky = charges.get(timeout=SECONDS)
    unlucky.answer(503)
    cut_off = charges.get(timeout=SECONDS)
    assert ended(server, signal.SIGKILL) == -signal.SIGKILL
    cut_off.answer(200)  # the charge is made; nobody is there to be told
    page = before.durable("show", run_id)
    assert "charge" in page, page
    assert before.lines("list", "--workflow", "ride")[0]["status"] == "running"

    after = program("rides", source=then, folder="elsewhere")
    server = after.serve()
    asked_again = charges.get(timeout=SECONDS)
    assert unlucky.key == cut_off.key == asked_again.key
    asked_again.answer(200)
    receipt = after.call("wait", run_id, "--db", after.journal)
    assert "'charge_id': 'charge-1'" in receipt
    assert ended(server, signal.SIGTERM) == 0, after.complaints()
    assert charges.empty()
    assert rides_in(after.journal) == [(42, "Main St 1", "paid")]
    events = [(event["event"], event["position"]) for event in after.lines("history", run_id)]
    assert events.count(("TransactionStarted", "0")) == events.count(("StepSucceeded", "0")) == 1
    assert events.count(("StepStarted", "2")) == 3
    assert events.count(("StepInterrupted", "2")) == 1
    assert len(after.lines("list", "--workflow", "notify_drivers")) == 1


@pytest.fixture
def declined(program, payments):
    """
    A ride that failed in a frozen program: the program and the ride's id.

    In its folder lies a file with the name of one of its modules.
    """
    rides = program("rides")
    (rides.folder / "rides.py").write_text("raise SystemExit('not this one')\n" * 100)
    return rides, failed_ride(rides, payments)


def failed_ride(rides, payments):
    """
    The id of a ride that was declined.
    """
    url, charges = payments
    server = rides.serve()
    run_id = rides.call("book", "7", "Elm St 2", "--payments", url, "--db", rides.journal).strip()
    charges.get(timeout=SECONDS).answer(402)
    said = rides.call("wait", run_id, "--db", rides.journal, code=1)
    assert "DeclinedError(1, 'Payment Required')" in said
    ended(server, signal.SIGTERM)
    assert rides_in(rides.journal) == [(7, "Elm St 2", "declined")]
    return run_id


def test_its_own_command_line_reads_the_journal(declined):
    """
    list, show, history, stats, doctor and version work without source, and without an environment.
    """
    rides, run_id = declined
    listed = {run["workflow"]: run for run in rides.lines("list")}
    assert (listed["ride"]["run_id"], listed["ride"]["status"]) == (run_id, "failed")
    page = rides.durable("show", run_id)
    assert "DeclinedError: (1, 'Payment Required')" in page
    assert 'File "rides.py", line ' in page
    for stray in ("not this one", "durable/_"):  # text of another file; our own frames
        assert stray not in page
    assert "charge (rides.py:" in rides.durable("history", run_id)
    assert "ride" in rides.durable("stats")
    rides.durable("doctor")
    release = json.loads(rides.call("durable", "version", "--json"))
    assert release["durable"] != "unknown"
    for command in ("start", "check", "debug"):
        assert "usage:" in rides.call("durable", command, "--help")


def test_its_own_command_line_replays_with_the_code_inside(declined):
    """
    replay, trace, check and debug take the program's own workflow, and show file and line without text.
    """
    rides, run_id = declined
    assert rides.lines("replay", run_id)[0]["verdict"] == "same"
    rides.durable("check", "--all")
    traced = rides.lines("trace", run_id, "--app", "rides:ride")
    assert {(each["file"], each["source"]) for each in traced} == {("rides.py", "")}
    assert all(each["line"] > 1 for each in traced)
    session = rides.durable("debug", run_id, given="goto 2\nprint pickup\nback\nlist\nwhere\n")
    assert "Elm St 2" in session
    assert "no source: rides.py:" in session
    assert "not this one" not in session


def test_application_modules_that_it_lacks(declined, tmp_path):
    """
    A module that is not there, and one that is in the folder: code that was not frozen is read where it lies.
    """
    rides, run_id = declined
    said = rides.durable("replay", run_id, "--app", "nowhere", code=2)
    assert "no module is called 'nowhere'" in said
    (rides.folder / "broken.py").write_text("import json\n\nimport nowhere_else\n")
    said = rides.durable("replay", run_id, "--app", "broken", code=2)
    assert "No module named 'nowhere_else'" in said
    assert "broken.py:3" in said
    source = str(EXAMPLE / "rides.py")
    traced = rides.lines("trace", run_id, "--app", source)
    assert any("yield charge(" in each["source"] for each in traced)


def test_its_journal_is_read_by_an_interpreter(declined, program):
    """
    What the frozen program recorded is replayed from source, and its error has the class of the module.
    """
    _, run_id = declined
    source = program("rides", source=True, folder="elsewhere")
    assert source.lines("replay", run_id)[0]["verdict"] == "same"
    traced = source.lines("trace", run_id)
    assert any("yield charge(" in each["source"] for each in traced)
    assert "DeclinedError(1, 'Payment Required')" in source.call("wait", run_id, "--db", source.journal, code=1)


def test_it_reads_the_journal_of_an_interpreter(program, payments):
    """
    The other way round: recorded from source, replayed and rebuilt by the frozen program.
    """
    run_id = failed_ride(program("rides", source=True), payments)
    frozen = program("rides", folder="elsewhere")
    assert frozen.lines("replay", run_id)[0]["verdict"] == "same"
    assert "DeclinedError(1, 'Payment Required')" in frozen.call("wait", run_id, "--db", frozen.journal, code=1)


# --- everything in the script that was frozen -----------------------------------------------------


@pytest.mark.parametrize("source", [False, True], ids=["frozen", "from source"])
def test_no_name_depends_on_main(program, built, source):
    """
    What a script defines itself is recorded under its file's name, so that everybody finds it: the program frozen and
    from source, and an interpreter that imports the script.
    """
    solo = program("solo", source=source)
    assert "SoldOut (7, 'sold out')" in solo.call(solo.journal)
    exported = solo.durable("export", "--all")
    assert '"module":"solo"' in exported
    assert "__main__" not in exported.replace('`if __name__ == "__main__":`', "")
    for reader in (program("solo", folder="frozen"), program("solo", folder="interpreted", source=True)):
        assert {each["verdict"] for each in reader.lines("replay", "key:show", "--app", "solo")} == {"same"}
    script = (
        "import asyncio, sys, solo\nfrom durable import Client, RunFailedError\n"
        "async def main():\n"
        "    async with Client(sys.argv[1]) as client:\n"
        "        run = await client.find('show')\n"
        "        try:\n"
        "            await run.result()\n"
        "        except RunFailedError as error:\n"
        "            assert type(error.__cause__) is solo.SoldOut, error.__cause__\n"
        "            print('rebuilt')\n"
        "asyncio.run(main())\n"
    )
    reader = Program([sys.executable, "-c", script], built, solo.journal)
    assert reader.call(solo.journal) == "rebuilt\n"


def test_steps_in_processes_work_where_a_module_has_them(program):
    """
    A worker is the frozen program itself, started again. It cannot import the script, and is not asked to.
    """
    solo = program("solo")
    said = solo.call(solo.journal)
    assert "Fatal step 'here' has process=True and is part of the script that was frozen" in said
    assert "SoldOut" in said  # so crunch, of a module, gave its sum
    (failed,) = solo.lines("list", "--workflow", "locally")
    assert failed["status"] == "failed"


def test_the_daemon_takes_in_each_file_once_although_it_is_killed(built):
    """
    The example as one file: its pool, its bar and its end by a signal are those of the interpreter.
    """
    code = "import sys, taking_in; taking_in.run(sys.argv[1:], 60)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(INGEST), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", code, built / "ingestd"],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "ended by SIGKILL: exit code -9" in done.stdout
    assert "60 of 60 (100%)" in done.stdout
    assert "ended by SIGTERM: exit code 0" in done.stdout
    assert "58 files in the table, 58 done" in done.stdout


def test_a_program_that_imports_the_dashboard_serves_it(program):
    """
    From the one file: pages, the style, and the debugger with the program's own code. Others say how to have it.
    """
    solo = program("solo")
    solo.call(solo.journal)
    server = solo.start("durable", "ui", "--port", "0", "--db", solo.journal, "--app", "__main__")
    url = server.stdout.readline().split()[0]
    with urlopen(f"{url}runs?text=sold") as page:
        text = page.read().decode()
    assert "SoldOut" in text
    run_id = re.search(r"run\?id=([^\"&]+)", text)[1]
    with urlopen(f"{url}run?id={run_id}") as page:
        assert "sold out" in page.read().decode()
    with urlopen(f"{url}static/durable.css") as page:
        assert page.headers["Content-Type"].startswith("text/css")
    assert "built without a dashboard" in program("rides").durable("ui", code=2)
    assert "_durable" in program("rides").call("durable", "completion", "bash")

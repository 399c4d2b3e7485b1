"""
Several processes on one journal: an owner that is stopped while a standby waits; owners that are killed one after
the other while ten clients go on asking; a file system that is full, or read-only.

What must hold: one owner at a time, and a stopped one keeps the file; whatever a client was told is recorded is
there, whoever was the owner; nothing runs twice. On a full file system nothing is acknowledged that is not there,
and the engine goes on by itself once there is room; on a read-only one it says so.
"""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import soak_judge

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# Forked from a program of one thread, which a test is not.
STOPPED = """
import signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from soak import Soak

soak = Soak(Path(sys.argv[2]), seed=1)
owner = soak.life()
assert owner.opened()
time.sleep(0.3)
standby = soak.life(standby=True)
for _ in range(3):
    owner.send(signal.SIGSTOP)
    time.sleep(0.1)  # what it was writing is written
    before = soak.ledger_lines()
    assert not standby.opened(0.4), "a stopped owner lost the file"
    assert soak.ledger_lines() == before, "somebody works for a stopped owner"
    owner.send(signal.SIGCONT)
    time.sleep(0.2)
    assert soak.ledger_lines() > before, "it did not go on"
owner.send(signal.SIGSTOP)
owner.send(signal.SIGKILL)
began = time.monotonic()
assert standby.opened(5.0), "the standby did not take over"
print(f"taken over in {time.monotonic() - began:.3f} s")
time.sleep(0.3)
standby.send(signal.SIGKILL)
standby.ended()
owner.ended()
soak.finish()
assert not soak.trouble, soak.trouble
"""


def test_a_stopped_owner_keeps_the_file_and_a_killed_one_hands_it_over(tmp_path):
    """P5: a standby waits for the death of the owner, not for its silence."""
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, HERE, tmp_path], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert soak_judge.judge(tmp_path).found == {fault: [] for fault in soak_judge.FAULTS}


CLIENT = """
import asyncio, json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import soak_load
from durable import Client
from durable.errors import JournalError

folder, number = Path(sys.argv[2]), int(sys.argv[3])
ledger = soak_load.Ledger(folder, -1)

async def asked(request):
    while True:  # the owner may die with the request in its hands: asked again, with the same id
        try:
            return await request()
        except JournalError:
            await asyncio.sleep(0.02)

async def main():
    async with Client(folder / "app.db") as client:
        for each in range(4):
            name = f"signalled-{number}-{each}"
            run = await asked(lambda: client.start(soak_load.signalled(name), id=name))
            ledger.write("ack", name, "signalled")
            shared = await asked(lambda: client.start(soak_load.rows(f"shared-{each}"), key=f"shared-{each}"))
            ledger.write("ack", shared.run_id, "rows")
            ledger.write("ack", shared.run_id, f"key shared-{each}")
            for value in range(3):
                await asked(lambda: run.signal("go", value, dedup=str(value)))
                ledger.write("signal", name, value)
                await asyncio.sleep(0.02)
            ledger.write("end", name, "succeeded", await asked(run.result))

asyncio.run(main())
"""
OWNERS = """
import random, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from soak import Soak

soak = Soak(Path(sys.argv[2]), seed=int(sys.argv[3]), runs=0)
first = soak.life()
assert first.opened()
print("open", flush=True)
standby = first
while not select_stdin():
    standby = soak.kill_one(standby) or soak.life(standby=True)
soak.finish(standby)
assert not soak.trouble, soak.trouble
print(soak.kills)
""".replace("select_stdin()", "__import__('select').select([sys.stdin], [], [], 0)[0]")


@pytest.mark.timeout(240)
def test_ten_client_processes_do_not_notice_that_owners_die(tmp_path):
    """P1, P5, P6, P7: four keys that all of them share, runs and signals of their own."""
    seed = int(os.environ.get("DURABLE_SEED", time.time_ns() % 2**32))
    owners = subprocess.Popen(
        [sys.executable, "-c", OWNERS, HERE, tmp_path, str(seed)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    clients = []
    try:
        assert owners.stdout.readline() == "open\n"
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", CLIENT, HERE, tmp_path, str(number)], stderr=subprocess.PIPE, text=True
            )
            for number in range(10)
        ]
        for client in clients:
            _, error = client.communicate(timeout=150)
            assert client.returncode == 0, f"seed {seed}: {error[-3000:]}"
        printed, error = owners.communicate("enough\n", timeout=150)
        assert owners.returncode == 0, f"seed {seed}: {error[-3000:]}"
    finally:
        for process in (owners, *clients):
            if process.poll() is None:
                process.kill()
                process.communicate()
    assert int(printed) >= 2
    found = soak_judge.judge(tmp_path)
    assert found.found == {fault: [] for fault in soak_judge.FAULTS}, f"seed {seed}"
    assert len(found.acks) == 44


# --- file systems ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_file_system(folder, size):
    """A file system of its own, of so many MiB; skips where that takes rights that we lack."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", folder], capture_output=True, text=True, check=False
    ) if os.geteuid() == 0 else None  # fmt: skip
    if mounted is None or mounted.returncode:
        pytest.skip("mounting a file system needs root" if mounted is None else f"cannot mount: {mounted.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


FILLED = """
import asyncio, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import logging, structlog
import soak_load
from durable.errors import JournalError

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
folder = Path(sys.argv[2])
soak_load.prepare(folder)

async def main():
    soak_load.ledger = soak_load.Ledger(folder.parent, 1)
    soak_load.ledger.write("boot", 1)
    async with soak_load.make_engine(folder) as engine:
        (folder / "ballast").write_bytes(bytes(os.statvfs(folder).f_bavail * 4096 - 300_000))
        callers = [asyncio.create_task(soak_load.begin(engine, "chain", f"chain-1-{n}")) for n in range(40)]
        async with asyncio.timeout(15):
            while engine._backend.running.commits.trouble is None:  # `stats` reads the file, which is closed meanwhile
                await asyncio.sleep(0.01)
        used = time.process_time()
        await asyncio.sleep(0.5)
        print("busy" if time.process_time() - used > 0.25 else "calm")
        try:
            await asyncio.wait_for(engine.start(soak_load.rows("refused")), 10)
            print("acknowledged")
        except JournalError:
            print("refused")
        (folder / "ballast").unlink()
        async with asyncio.timeout(20):
            await asyncio.gather(*callers)
        print((await engine.stats()).trouble)
        await soak_load.finish(engine, folder.parent, 10.0)

asyncio.run(main())
"""


def test_a_full_file_system_is_waited_out(tmp_path):
    """P11: SQLITE_FULL from a real one; nobody is told anything that is not there, and no step runs again."""
    with small_file_system(tmp_path / "small", 4) as folder:
        done = subprocess.run(
            [sys.executable, "-c", FILLED, HERE, folder], capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines() == ["calm", "refused", "None"]
        (tmp_path / "app.db").write_bytes((folder / "app.db").read_bytes())
    assert soak_judge.judge(tmp_path).found == {fault: [] for fault in soak_judge.FAULTS}


READ_ONLY = """
import asyncio, sys
from durable import Client, Engine, job
from durable.errors import JournalError

@job
async def nothing() -> None: ...

async def main():
    try:
        await Engine(sys.argv[1], [nothing]).open()
        print("opened")
    except JournalError as error:
        print(type(error).__name__)

asyncio.run(main())
"""


def test_a_file_system_that_was_mounted_read_only_is_said(tmp_path):
    with small_file_system(tmp_path / "small", 4) as folder:
        command = [sys.executable, "-c", READ_ONLY, folder / "app.db"]
        first = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, cwd=ROOT)
        assert first.stdout.splitlines()[-1] == "opened", first.stderr
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        second = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, cwd=ROOT)
        assert second.stdout.splitlines()[-1] == "JournalAccessError", second.stdout + second.stderr

"""
One owner per file: who is refused, who takes over, and what a fork may not keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from durable import Limit, job
from durable._shell.engine import running
from durable._shell.ownership import ownership as ownership_module
from durable._shell.ownership.ownership import Ownership
from durable.errors import JournalAccessError, JournalLockedError

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]

OWNER = """
    import os, sys, time
    from durable._shell.ownership.ownership import Ownership
    mine = Ownership.acquire(sys.argv[1])
    if "fork" in sys.argv[2:] and os.fork() == 0:
        sys.stdin.read()  # outlives its parent, until the test lets go
        os._exit(0)
    print("owned", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


@contextlib.contextmanager
def owner(path, *options):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), str(path), *options],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "owned\n"
        yield process
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


def standby_threads():
    return [t for t in threading.enumerate() if t.name == "durable-standby"]


async def queued():
    """Returns once a standby thread waits in the kernel (its lock shows up as blocked there)."""
    for _ in range(500):
        if "->" in Path("/proc/locks").read_text():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits for the lock")


def test_the_side_file_names_its_owner_and_nobody_else_can_read_it(path):
    """Mode 0600; pid, host and since when; emptied, never deleted, at release."""
    ownership = Ownership.acquire(path)
    side = Path(ownership.lock_path)
    assert stat.S_IMODE(side.stat().st_mode) == 0o600
    assert json.loads(side.read_text())["pid"] == os.getpid()
    assert ownership.held
    assert not ownership.forked
    ownership.check()
    ownership.release()
    ownership.release()
    assert not ownership.held
    assert side.read_text() == ""
    assert not path.exists()


def test_a_second_engine_of_this_process_is_refused(path):
    """Through a symbolic link too, until the first one is gone."""
    link = path.parent / "link.db"
    link.symlink_to(path)
    with Ownership.acquire(path):
        with pytest.raises(JournalLockedError) as caught:
            Ownership.acquire(link)
        assert f"pid {os.getpid()} (this process) on host" in caught.value.holder
        assert caught.value.path == str(path)
    Ownership.acquire(link).release()


def test_a_second_process_is_refused_with_the_holder_named(path):
    """Also while the owner is stopped: it keeps the file. Killed, it loses it at once."""
    with owner(path) as process:
        for _ in range(2):
            with pytest.raises(JournalLockedError, match=rf"pid {process.pid} on host .* since \d{{4}}-"):
                Ownership.acquire(path)
            process.send_signal(signal.SIGSTOP)
        process.kill()
        process.wait(10)
        Ownership.acquire(path).release()


def test_a_forked_child_of_a_killed_owner_does_not_keep_the_file(path):
    """The child's copy of the descriptor is closed at the fork."""
    with owner(path, "fork") as process:
        process.kill()
        process.wait(10)
        deadline = time.monotonic() + 10.0
        while True:  # the child may have been forked this very moment, and not have run yet
            try:
                Ownership.acquire(path).release()
                break
            except JournalLockedError:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_a_forked_child_owns_nothing_and_cannot_release(path):
    """It knows that it is a child; whatever it does, the parent keeps the file."""
    script = """
        import os, sys
        from durable._shell.ownership.ownership import Ownership
        from durable.errors import JournalLockedError
        mine = Ownership.acquire(sys.argv[1])
        if (child := os.fork()) == 0:
            fine = mine.forked and not mine.held
            mine.release()
            try:
                Ownership.acquire(sys.argv[1])
            except JournalLockedError:
                os._exit(7 if fine else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert mine.held and not mine.forked
        try:
            Ownership.acquire(sys.argv[1])
        except JournalLockedError:
            print("still mine")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        capture_output=True, text=True, timeout=20, cwd=ROOT, check=False,
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ("still mine\n", "")


def test_a_program_that_we_start_does_not_inherit_the_lock(path):
    """Close-on-exec."""
    ownership = Ownership.acquire(path)
    with subprocess.Popen(["sleep", "30"], close_fds=False) as other:
        ownership._close()  # as if we had died: no LOCK_UN
        Ownership.acquire(path).release()
        other.kill()


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff\xfe", b'{"pid": "x"}', b"[]"])
def test_a_side_file_that_names_nobody_still_locks(path, text):
    """The lock decides, not what the file says."""
    with Ownership.acquire(path) as ownership:
        Path(ownership.lock_path).write_bytes(text)
        with pytest.raises(JournalLockedError, match="unnamed"):
            Ownership.acquire(path)


def test_a_name_that_a_killed_owner_left_is_not_believed_at_once(path, monkeypatch):
    """Who takes the lock this moment has not written its own name yet: a client, say, which is worth waiting for."""
    holder = Ownership(path)
    side = Path(holder.lock_path)

    def name(role):
        side.write_text(json.dumps({"role": role, "pid": 1, "host": "h", "since": "2026-01-01"}))

    fcntl.flock(holder._fd, fcntl.LOCK_EX)
    name("engine")
    monkeypatch.setattr(ownership_module.time, "sleep", lambda _: name("client"))
    with pytest.raises(JournalLockedError) as caught:
        Ownership.acquire(path)
    assert caught.value.role == "client"
    holder._close()


def test_what_the_side_file_says_cannot_control_a_terminal(path):
    """Escape sequences of a stranger's do not reach the error."""
    with Ownership.acquire(path) as ownership:
        Path(ownership.lock_path).write_text(json.dumps({"pid": 1, "host": "\x1b[2Jevil", "since": "x\n"}))
        with pytest.raises(JournalLockedError) as caught:
            Ownership.acquire(path)
        assert caught.value.holder == "pid 1 on host [2Jevil since x"


def test_links_pipes_and_missing_directories_are_refused(path):
    """No file that somebody pointed us at is opened or truncated."""
    side, victim = Path(f"{path}.lock"), path.parent / "victim"
    victim.write_text("precious")
    side.symlink_to(victim)
    with pytest.raises(JournalAccessError):
        Ownership.acquire(path)
    assert victim.read_text() == "precious"
    side.unlink()
    os.mkfifo(side)
    with pytest.raises(JournalAccessError, match="not a regular file"):
        Ownership.acquire(path)
    with pytest.raises(JournalAccessError, match="No such file"):
        Ownership.acquire(path.parent / "none" / "app.db")


def test_a_file_system_without_locks_is_said(path, monkeypatch):
    """The operating system's words, in an error of ours; nothing stays open."""

    def no_locks(fd, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(ownership_module.fcntl, "flock", no_locks)
    with pytest.raises(JournalAccessError, match="No locks available"):
        Ownership.acquire(path)
    assert not ownership_module._open


def test_a_deleted_side_file_is_noticed(path):
    """Another engine could lock a new file of that name."""
    with Ownership.acquire(path) as ownership:
        Path(ownership.lock_path).unlink()
        with pytest.raises(JournalAccessError, match="deleted or replaced"):
            ownership.check()


def test_a_side_file_replaced_while_we_lock_it_is_locked_again(path, monkeypatch):
    """The lock we report is on the file of that name, not on one deleted meanwhile."""
    real, replaced = fcntl.flock, []

    def flock(fd, operation):
        real(fd, operation)
        if not replaced:
            replaced.append(True)
            Path(f"{path}.lock").unlink()

    monkeypatch.setattr(ownership_module.fcntl, "flock", flock)
    with Ownership.acquire(path) as ownership:
        ownership.check()
    assert replaced


def test_a_side_file_replaced_for_ever_is_an_error(path, monkeypatch):
    """No endless loop."""
    real = fcntl.flock

    def flock(fd, operation):
        real(fd, operation)
        Path(f"{path}.lock").unlink()

    monkeypatch.setattr(ownership_module.fcntl, "flock", flock)
    with pytest.raises(JournalAccessError, match="again and again"):
        Ownership.acquire(path)


# --- standby ------------------------------------------------------------------------------------------


async def test_a_free_file_is_owned_without_waiting(path):
    """`wait` is `acquire` when nobody is there."""
    with await Ownership.wait(path) as ownership:
        ownership.check()
        with pytest.raises(JournalLockedError, match="this process"):
            Ownership.acquire(path)


async def test_a_standby_takes_over_from_a_killed_owner(path):
    """As soon as the kernel frees the lock."""
    with owner(path) as process:
        waiting = asyncio.ensure_future(Ownership.wait(path))
        await queued()
        assert not waiting.done()
        process.kill()
        with await asyncio.wait_for(waiting, 10) as ownership:
            assert json.loads(Path(ownership.lock_path).read_text())["pid"] == os.getpid()


async def test_a_cancelled_standby_gives_the_lock_back_when_it_comes(path):
    """Nobody waits any more, hence nobody owns; its thread ends by itself."""
    with Ownership.acquire(path):
        waiting = asyncio.ensure_future(Ownership.wait(path))
        await queued()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert all(t.daemon for t in standby_threads())
    for thread in standby_threads():
        thread.join(10)
    await asyncio.sleep(0)
    Ownership.acquire(path).release()
    assert not ownership_module._open


async def test_a_standby_cancelled_as_the_lock_arrives_gives_it_back(path):
    """The narrow case: the lock is handed over in the turn that cancels."""
    waiting = asyncio.ensure_future(Ownership.wait(path))
    await asyncio.sleep(0)
    for thread in standby_threads():
        thread.join(10)  # it has the lock, and has asked the loop to hand it over
    asyncio.get_running_loop().call_soon(waiting.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        (await waiting).release()
    Ownership.acquire(path).release()
    assert not ownership_module._open


async def test_a_standby_cancelled_after_the_hand_over_gives_it_back(path, monkeypatch):
    """The lock is ours, the awaiter has not run yet, and is cancelled."""
    real = Ownership._block

    def block(self, loop, arrived):
        arrived.add_done_callback(lambda _: waiting.cancel())
        real(self, loop, arrived)

    monkeypatch.setattr(Ownership, "_block", block)
    waiting = asyncio.ensure_future(Ownership.wait(path))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not ownership_module._open


async def test_a_standby_whose_lock_file_was_replaced_waits_for_the_new_one(path):
    """Two owners of two files of one name would both write."""
    first = Ownership.acquire(path)
    waiting = asyncio.ensure_future(Ownership.wait(path))
    await queued()
    Path(first.lock_path).unlink()
    second = Ownership.acquire(path)
    first.release()
    await queued()
    assert not waiting.done()
    second.release()
    (await asyncio.wait_for(waiting, 10)).release()


async def test_a_standby_without_locks_is_told(path, monkeypatch):
    """The error of the thread reaches the caller."""

    def no_locks(fd, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(ownership_module.fcntl, "flock", no_locks)
    with pytest.raises(JournalAccessError, match="No locks available"):
        await Ownership.wait(path)
    assert not ownership_module._open


def test_a_standby_whose_loop_ended_owns_nothing(path):
    """The thread notices on its own that nobody is there, and the process can end meanwhile."""
    with Ownership.acquire(path):
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(Ownership.wait(path))
        loop.run_until_complete(queued())
        waiting.cancel()
        loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))
        loop.close()
    for thread in standby_threads():
        thread.join(10)
    Ownership.acquire(path).release()
    assert not ownership_module._open
    gc.collect()


def test_a_waiting_process_can_always_end(path):
    """Interrupted while it waits, it exits; the queued thread does not hold it."""
    script = """
        import asyncio, sys
        from durable._shell.ownership.ownership import Ownership

        async def main():
            try:
                await asyncio.wait_for(Ownership.wait(sys.argv[1]), 0.2)
            except TimeoutError:
                print("gave up")

        asyncio.run(main())
    """
    with Ownership.acquire(path):
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(path)],
            capture_output=True, text=True, timeout=10, cwd=ROOT, check=False,
        )  # fmt: skip
    assert (result.stdout, result.stderr, result.returncode) == ("gave up\n", "", 0)


def test_what_an_owner_noted_before_it_died_is_read_by_the_next_that_executes_the_file(path):
    """
    Not by one who owns it for a moment; an owner that gives the file up leaves nothing, and nor does a full line.
    """
    with Ownership.acquire(path) as ownership:
        assert ownership.last_words() is None
    ownership = Ownership.acquire(path)
    ownership.note(0, b"first")
    ownership.note(1, b"x" * 512)
    ownership._close()  # as if we had died
    Ownership.acquire(path).release()
    ownership = Ownership.acquire(path)
    assert ownership.last_words() == [b"first", b""]
    ownership.forget_last_words()
    assert ownership.last_words() is None
    with pytest.raises(JournalLockedError, match=f"pid {os.getpid()} "):
        Ownership.acquire(path)
    ownership.note(1, b"second")
    ownership.note(1, b"")
    ownership._close()
    ownership = Ownership.acquire(path)
    assert ownership.last_words() == [b"", b""]
    ownership.forget_last_words()
    ownership.release()
    assert Path(ownership.lock_path).read_bytes() == b""


@pytest.mark.parametrize("dies", [True, False])
def test_what_a_dead_owner_noted_stays_until_it_is_forgotten(path, dies):
    """
    Whoever reads it may die before it had its consequence, or give the file up.
    """
    ownership = Ownership.acquire(path)
    ownership.note(0, b"first")
    ownership._close()  # as if we had died
    ownership = Ownership.acquire(path)
    assert ownership.last_words() == [b"first", b""]
    if dies:
        ownership._close()
    else:
        ownership.release()
    ownership = Ownership.acquire(path)
    assert ownership.last_words() == [b"first", b""]
    ownership.release()


async def test_an_engine_that_cannot_open_leaves_what_the_dead_one_noted(path, engines, monkeypatch):
    """
    Its transaction was rolled back, so the next engine is to charge that death.
    """

    @job(limit=Limit("one", concurrency=1))
    def limited() -> None:
        pass

    engine = await engines.file(limited)
    await engine.aclose()
    ownership = Ownership.acquire(engines.path)
    ownership.note(0, b"first")
    ownership._close()  # as if we had died

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(running, "adopt", full)  # the last that opening writes, in the same transaction
        with pytest.raises(Exception, match="disk is full"):
            await engines.file(limited)
    ownership = Ownership.acquire(engines.path)
    assert ownership.last_words() == [b"first", b""]
    ownership.release()
    await engines.file(limited)
    assert b"first" not in Path(f"{engines.path}.lock").read_bytes()

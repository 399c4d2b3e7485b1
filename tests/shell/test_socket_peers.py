"""
The socket beside a journal: who may ask and who may answer, and how much of the engine one client may take.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile

import pytest
from structlog.testing import capture_logs

from durable import Client, Engine, job
from durable._shell.client.owner_socket import OwnerSocket
from durable._shell.requests import wire
from durable._shell.requests.peers import UNKNOWN_UID, Peer
from durable._shell.tasks import server
from durable.errors import JournalAccessError

pytestmark = pytest.mark.anyio
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")


@job
async def quick(number: int) -> int:
    return number


@pytest.fixture
def shared_path():
    """
    Where other users get, too.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield f"{folder}/app.db"


CONNECTS = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(10)
try:
    s.sendall(b'{"version": 1, "request": "WaitForEnd", "arguments": {"run_id": ""}}\\n')
    print("answered", s.recv(1000))
except OSError as error:
    print("closed", error)
"""
LISTENS = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print("listening", flush=True)
while True:
    c, _ = s.accept(); print("asked", c.recv(100), flush=True)
"""


@contextlib.contextmanager
def process(script, path, user):
    started = subprocess.Popen(
        [sys.executable, "-c", script, path, str(user)], stdout=subprocess.PIPE, text=True, cwd="/", env={}
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


@AS_ROOT
async def test_a_client_of_another_user_is_not_answered(shared_path):
    """
    Whatever the mode of the socket: the kernel says who it is. The log names the user once.
    """
    async with Engine(shared_path, [quick], durability="process") as engine:
        os.chmod(f"{shared_path}.sock", 0o666)
        with capture_logs() as logs:
            for _ in range(2):
                with process(CONNECTS, f"{shared_path}.sock", 12345) as child:
                    said, _ = await asyncio.to_thread(child.communicate, timeout=10)
                assert said.startswith("closed") or said == "answered b''\n"
        assert [each["uid"] for each in logs if each["event"] == "client.refused"] == [12345]
        assert await engine.run(quick(1)) == 1


@AS_ROOT
async def test_an_answer_of_another_user_is_not_believed(shared_path):
    """
    Nothing is sent to it: the client says who sits there.
    """
    async with Engine(shared_path, [quick], durability="process"):
        os.unlink(f"{shared_path}.sock")
        with process(LISTENS, f"{shared_path}.sock", 12345) as child:
            assert await asyncio.to_thread(child.stdout.readline) == "listening\n"
            async with Client(shared_path) as client:
                with pytest.raises(JournalAccessError, match="user 12345"):
                    await client.start(quick(1))


async def test_a_peer_that_is_gone_is_no_stranger(tmp_db):
    """
    Of one that died while we connected the kernel has no user: whoever owns the file next is asked, and nobody blamed.
    """
    assert OwnerSocket(str(tmp_db), 1.0)._is_owner(Peer(0, UNKNOWN_UID)) is False


async def test_who_listens_must_be_who_owns_the_file(engines):
    """
    Another process of the same user is no owner: the lock names the one that is.
    """
    await engines.file(quick)
    os.unlink(f"{engines.path}.sock")
    with process(LISTENS, f"{engines.path}.sock", os.getuid()) as child:
        assert await asyncio.to_thread(child.stdout.readline) == "listening\n"
        async with Client(engines.path, timeout=0.3) as client:
            with pytest.raises(JournalAccessError, match="has not listened on its socket"):
                await client.start(quick(1))
        child.kill()
        assert "request" not in child.stdout.read()


@contextlib.asynccontextmanager
async def connection(engines):
    reader, writer = await asyncio.open_unix_connection(f"{engines.path}.sock")
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_a_client_that_says_nothing_is_dropped(engines, monkeypatch):
    """
    Nothing, or half a line, or the beginning of a long one.
    """
    monkeypatch.setattr(server, "LINE_SECONDS", 0.1)
    engine = await engines.file(quick)
    for said in (b"", b"half a line", b"x" * (3 << 20)):
        async with connection(engines) as (reader, writer):
            writer.write(said)
            assert await asyncio.wait_for(reader.read(), 5) == b""
    assert await engine.run(quick(1)) == 1


async def test_a_line_longer_than_any_request_is_dropped(engines, monkeypatch):
    """
    Before all of it has come.
    """
    monkeypatch.setattr(server, "LINE_BYTES", 4 << 20)
    await engines.file(quick)
    async with connection(engines) as (reader, writer):
        with contextlib.suppress(OSError):
            for _ in range(64):
                writer.write(b"x" * (1 << 20))
                await writer.drain()
        with contextlib.suppress(OSError):
            assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_there_is_a_place_for_so_many_clients(engines, monkeypatch):
    """
    One more is dropped, and finds a place once another has left. Waits leave places for requests.
    """
    monkeypatch.setattr(server, "MOST_CLIENTS", 3)
    monkeypatch.setattr(server, "MOST_WAITING", 1)
    monkeypatch.setattr(server, "LOOK_AGAIN_SECONDS", 0.05)
    engine = await engines.file(quick)
    run = await engine.start(quick(1), delay=1_000)
    wait = {"version": wire.VERSION, "request": "WaitForEnd", "arguments": {"run_id": run.id}}
    async with connection(engines) as (first, to_first), connection(engines) as (second, to_second):
        for each in (to_first, to_second):
            each.write(json.dumps(wait).encode() + b"\n")
            await asyncio.sleep(0.01)
        # there is a place for one that waits: the other is told to look again
        assert json.loads(await asyncio.wait_for(second.readline(), 5)) == {"version": 1, "result": None}
        async with connection(engines), connection(engines) as (fourth, _):
            assert await asyncio.wait_for(fourth.read(), 5) == b""
        async with Client(engines.path) as client:
            assert await client.get(run.id).cancel()
        assert json.loads(await asyncio.wait_for(first.readline(), 5)) == {"version": 1, "result": None}


async def test_long_requests_of_many_clients_are_all_recorded(engines):
    """
    Some are read while the others wait.
    """
    engine = await engines.file(quick, note)
    async with Client(engines.path) as client:
        runs = await asyncio.gather(*(client.start_many([note("x" * 900_000)] * 2) for _ in range(6)))
    assert len({run.id for each in runs for run in each}) == 12
    for run in (run for each in runs for run in each):
        assert await engine.get(run.id).result() == 900_000


@job
async def note(text: str) -> int:
    return len(text)

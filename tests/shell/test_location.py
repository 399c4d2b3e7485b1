"""
Where journals may lie: every path that the file system takes, and the right error first where one cannot be used.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from durable import Client, Engine, Flow, Return, job, wait_for, workflow
from durable._cli.main import main
from durable._shell.ownership import ownership
from durable._shell.ownership.ownership import Ownership
from durable._shell.requests.sockets import address_of, socket_path
from durable._shell.storage import location
from durable.errors import JournalAccessError, JournalLockedError

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


@job
async def quick(number: int) -> int:
    return number


@workflow
async def waiting() -> Flow[str]:
    value: str = yield wait_for("go", str)
    yield Return(value)


DEEP = os.path.join(*["deep-" + "x" * 40] * 5)


@pytest.mark.parametrize(
    "name",
    ["my app/my db.db", "größe/büro.db", "what?#1/a%20b?mode=ro&x.db", "it's\n/app.db", f"{DEEP}/app.db", "n" * 240],
    ids=["spaces", "unicode", "of_uris", "newline", "deep", "long"],
)
@pytest.mark.parametrize("slashes", ["", "/"], ids=["", "two_slashes"])
async def test_every_path_works_for_engine_client_and_command_line(tmp_path, capsys, name, slashes):
    """What a client asks for arrives through the socket, however long the path is, and nothing strange is left."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    given = f"{slashes}{path}"
    async with Engine(given, [waiting], durability="process") as engine:
        run = await engine.start(waiting())
        async with Client(given, timeout=5) as client:
            await client.get(run.id).signal("go", "hello")
        assert await run.result(5) == "hello"
        assert await asyncio.to_thread(main, ["list", "--db", given]) == 0
        assert run.id[:6] in capsys.readouterr().out
    assert {each.name for each in path.parent.iterdir()} <= {path.name, f"{path.name}.lock"}


def test_addresses_of_sockets_fit_and_lead_beside_the_file(tmp_path):
    """A short path is its own address; a long one goes by way of its folder, which is closed afterwards."""
    with address_of(socket_path("/srv/app.db")) as address:
        assert address == "/srv/app.db.sock"
    assert len(os.path.basename(socket_path(f"/srv/{'n' * 250}"))) < 60
    folder = tmp_path / DEEP
    folder.mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    with address_of(socket_path(str(folder / "app.db"))) as address:
        assert len(address) < 100
        assert os.path.realpath(os.path.dirname(address)) == str(folder)
    assert len(os.listdir("/proc/self/fd")) == before


# --- the right error first -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, said",
    [
        ("", "the path is empty: name a file"),
        (".", "it is a folder, .*name one in it"),
        ("folder", "it is a folder, .*folder/app.db"),
        ("folder/", "it is a folder, .*folder/app.db"),
        ("new/", "it is a folder"),
        ("none/app.db", "the folder .*/none does not exist: make it first"),
        ("file/app.db", "file is not a folder, but a file|the folder .*/file cannot be seen"),
        ("a\0b", "NUL"),
        ("pipe", "not a regular file"),
    ],
)
@pytest.mark.parametrize("standby", [False, True])
async def test_what_cannot_be_a_journal_is_told_first(tmp_path, monkeypatch, given, said, standby):
    """Before a lock is made, in words of ours, with what to do; also to a client, where there is anything to open."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(JournalAccessError, match=said):
        await Engine(given, [quick], standby=standby).open()
    with pytest.raises(JournalAccessError):
        async with Client(given):
            pass
    assert not list((tmp_path / "folder").iterdir())
    assert {each.name for each in tmp_path.iterdir()} <= {"folder", "file", "pipe", "pipe.lock"}


async def _closed(path):
    async with Engine(path, [quick]):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_users_files_and_folders_are_told_with_both_users(tmp_path):
    """Who owns it, who we are: not that a lock cannot be made."""
    script = """
        import asyncio, os, sys
        from durable import Client, Engine, job
        from durable.errors import JournalAccessError

        @job
        async def quick() -> int:
            return 1

        os.setuid(65534)
        for path in sys.argv[1:]:
            try:
                asyncio.run(Engine(path, [quick]).open())
            except JournalAccessError as error:
                print(error)
            try:
                asyncio.run(Client(path).open())
            except JournalAccessError as error:
                print("client:", error)
    """
    outside = Path("/tmp") / f"durable-{os.getpid()}-users"  # pytest's folders are closed to others
    outside.mkdir(mode=0o755)
    try:
        (outside / "open").mkdir()
        (outside / "open").chmod(0o777)
        for name in ("root.db", "lock.db.lock"):
            (outside / "open" / name).touch(mode=0o600)
        closed = outside / "closed"
        closed.mkdir(mode=0o700)
        paths = [outside / "app.db", closed / "app.db", outside / "open" / "root.db", outside / "open" / "lock.db"]
        asyncio.run(_closed(outside / "read.db"))
        (outside / "read.db").chmod(0o644)
        paths.append(outside / "read.db")
        child = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, paths)],
            capture_output=True, text=True, timeout=30, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        said = [line for line in child.stdout.splitlines() if line.startswith("journal ")]
        assert len(said) == 5, child.stderr
        clients = [line for line in child.stdout.splitlines() if line.startswith("client: ")]
        assert "no such file" in clients[0]
        assert "cannot be seen: Permission denied (this process is user nobody)" in clients[1]
        assert "root.db belongs to user root (mode 0600), and this process is user nobody" in clients[2]
        assert "who must be able to make files in it while no engine has it open" in clients[4]
        for line in said:
            assert "root" in line
            assert "nobody" in line
        assert "must be able to make files in it" in said[0]
        assert "must read and write it" in said[2]
        assert "give it to that user" in said[3]
    finally:
        shutil.rmtree(outside)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
async def test_what_the_superuser_leaves_beside_a_journal_belongs_to_its_owner(tmp_path):
    """`sudo durable signal` must not keep the service out of its own file: lock, socket, WAL."""
    path = tmp_path / "app.db"
    path.touch(mode=0o600)
    os.chown(path, 65534, 65534)
    async with Engine(path, [quick]) as engine:
        await engine.run(quick(1))
        found = {each.name: each.stat().st_uid for each in tmp_path.iterdir()}
        assert {"app.db", "app.db.lock", "app.db.sock", "app.db-wal"} <= set(found)
        assert set(found.values()) == {65534}


async def test_a_network_file_system_is_refused_unless_it_is_insisted_on(tmp_path, monkeypatch):
    """`Engine(allow_network_fs=True)` opens it all the same."""
    for kind in ("nfs4", "virtiofs", "fuse.sshfs"):
        monkeypatch.setattr(location, "filesystem", lambda _, kind=kind: kind)
        with pytest.raises(JournalAccessError, match=rf"\({kind}\).*allow_network_fs=True"):
            await Engine(tmp_path / "app.db", [quick]).open()
    async with Engine(tmp_path / "app.db", [quick], allow_network_fs=True) as engine:
        assert await engine.run(quick(1)) == 1
    async with Client(tmp_path / "app.db", allow_network_fs=True) as client:  # it records by itself
        await client.start(quick(2), id="two")
    async with Client(tmp_path / "app.db") as client:
        with pytest.raises(JournalAccessError, match="allow_network_fs=True"):
            await client.start(quick(3))


async def test_a_file_that_is_mounted_by_itself_is_refused(tmp_path, monkeypatch):
    """`docker run -v ./app.db:/data/app.db`: its WAL would be lost with the container, its lock seen by nobody."""
    path = tmp_path / "app.db"
    path.touch()
    monkeypatch.setattr(location, "_mounts", lambda: [("/", "ext4"), (str(path), "ext4")])
    with pytest.raises(JournalAccessError, match=f"mount point.*Mount its folder instead .{tmp_path}"):
        await Engine(path, [quick]).open()
    assert path.stat().st_size == 0


# --- who owns it ---------------------------------------------------------------------------------------


def test_a_process_of_our_number_in_another_container_is_not_taken_for_us(tmp_path, monkeypatch):
    """Each container has a PID 1, and they may have one host name: the lock tells who we are, not the number."""
    path = tmp_path / "app.db"
    with Ownership.acquire(path):
        with pytest.raises(JournalLockedError, match=r"\(this process\)"):
            Ownership.acquire(path)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(ownership, "_open", set())  # as in another process
            with pytest.raises(JournalLockedError, match="another container's process of that number"):
                Ownership.acquire(path)


async def test_whether_an_owner_is_alive_is_asked_of_the_lock_not_of_its_number(engines, capsys):
    """The number of one that was killed may be another process's by now: here our own."""
    engine = await engines.file(quick)
    assert await asyncio.to_thread(main, ["doctor", "--db", engine.path]) == 0
    assert f"owned by process {os.getpid()}" in capsys.readouterr().out
    said = Path(f"{engine.path}.lock").read_bytes()
    await engine.aclose()
    Path(f"{engine.path}.lock").write_bytes(said)  # as a killed one leaves it
    assert await asyncio.to_thread(main, ["doctor", "--db", engine.path]) == 0
    assert f"no engine has the file open; the last, process {os.getpid()}, did not close it" in capsys.readouterr().out

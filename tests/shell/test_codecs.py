"""
`durable.codecs`: encryption whose keys change, compression that cannot be made to burst.
"""

import os
import zlib

import pytest

from durable import Client, Flow, Return, job, step, workflow
from durable.codecs import AesGcm, Chain, Fernet, Zlib, Zstd
from durable.errors import DecodeError

pytestmark = pytest.mark.anyio
KEY, OTHER = b"k" * 32, b"o" * 16
FERNETS = Fernet.new_key(), Fernet.new_key()

CODECS = {
    "fernet": Fernet(FERNETS[0]),
    "aes-gcm": AesGcm(KEY),
    "zlib": Zlib(),
    "zstd": Zstd(),
    "chain": Chain(Zstd(level=1), Zlib(level=1), AesGcm(AesGcm.new_key())),
}


@step
async def secret() -> str:
    return "SECRET" * 10


@workflow
async def knows() -> Flow[str]:
    found: str = yield secret()
    yield Return(found)


@job
async def quick(text: str) -> str:
    return text


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("data", [b"", b"null", b"x" * 100_000, os.urandom(1000)], ids=len)
def test_what_was_written_is_read(name, data):
    """
    By each of them, empty, large and by chance.
    """
    codec = CODECS[name]
    assert codec.decode(codec.encode(data)) == data


@pytest.mark.parametrize("name", CODECS)
def test_what_was_changed_is_refused(name):
    """
    By an exception, never by other bytes: cut off, or with another byte.
    """
    codec = CODECS[name]
    written = codec.encode(b"a value of some length, " * 10)
    for damaged in (written[:-1], written[: len(written) // 2], b"", written[:20] + b"\x00" + written[21:]):
        try:
            found = codec.decode(damaged)
        except Exception:  # each library has its own
            continue
        assert found == b"a value of some length, " * 10  # the byte was one that says nothing


@pytest.mark.parametrize(
    "old, both, new",
    [(AesGcm(OTHER), AesGcm(KEY, OTHER), AesGcm(KEY)),
     (Fernet(FERNETS[1]), Fernet(*FERNETS), Fernet(FERNETS[0]))],
)  # fmt: skip
def test_a_key_is_changed_by_putting_a_new_one_first(old, both, new):
    """
    The first writes, all read; without the old one, what it wrote is not read.
    """
    assert both.decode(old.encode(b"before")) == b"before"
    assert new.decode(both.encode(b"after")) == b"after"
    with pytest.raises(Exception):  # noqa: B017 - each library has its own
        new.decode(old.encode(b"before"))
    assert old.encode(b"x") != old.encode(b"x")


@pytest.mark.parametrize("codec", [Zlib(most_bytes=10_000), Zstd(most_bytes=10_000)])
def test_what_bursts_is_refused_before_it_is_there(codec):
    """
    A gigabyte of zeros takes little room on disk.
    """
    assert codec.decode(codec.encode(b"x" * 10_000)) == b"x" * 10_000
    for size in (10_001, 100 << 20):
        with pytest.raises(Exception, match="more than 10,000 bytes"):
            codec.decode(codec.encode(bytes(size)))


def test_no_key_is_no_codec():
    """
    Refused when it is made.
    """
    for cls in (AesGcm, Fernet, Chain):
        with pytest.raises(ValueError, match="at least one"):
            cls()
    with pytest.raises(ValueError):
        AesGcm(b"short")
    with pytest.raises(ValueError, match="not whole"):
        Zlib().decode(zlib.compress(b"x" * 100)[:-6])


async def test_a_journal_is_read_by_who_has_the_key(engines, tmp_db):
    """
    By the next engine, whose key is a new one, and by a client; not by who has none.
    """
    engine = await engines.file(knows, codec=AesGcm(OTHER))
    run = await engine.start(knows())
    await run.result()
    await engine.aclose()
    assert b"SECRETSECRET" not in tmp_db.read_bytes()
    engine = await engines.file(knows, codec=AesGcm(KEY, OTHER))
    assert await engine.get(run.id).result() == "SECRET" * 10
    async with Client(tmp_db, codec=AesGcm(KEY, OTHER)) as client:
        assert await client.get(run.id).result() == "SECRET" * 10
    async with Client(tmp_db) as client:
        with pytest.raises(DecodeError):
            await client.get(run.id).result()

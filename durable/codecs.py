"""
Hooks for ``Engine(codec=...)``, ``Client(codec=...)`` and ``@step(codec=...)``.

Encryption whose keys can be changed, and compression that has a bound on what it becomes when it is read:

    key = AesGcm.new_key()                                      # keep it where secrets are kept
    codec = Chain(Zlib(), AesGcm(key))                          # what is encrypted cannot be compressed any more
    Engine("rides.db", [ride], codec=codec)

A key is changed by putting a new one first: ``AesGcm(new, old)`` writes with the new one, and still reads what the
old one wrote. Values that were recorded without a codec are read as they are. Digests of arguments, which tell the
callers of one key apart, are made with the last key: once that is left out, what was recorded with it counts as equal,
and `by_arguments` makes other keys.

Beside values, what is said about them is encrypted: messages of errors, reasons of cancellations, reports of blocked
runs. What stays readable: ids, keys, labels, names of steps, queues, signals and limits' keys, descriptions, instants;
what the command line is told (``durable cancel --reason``), since it has no codec; and log lines.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from typing import Any, Final

from durable._core.codec.codec import ValueCodec
from durable._core.codec.concealing import encrypts

__all__ = ["AesGcm", "Chain", "Fernet", "Zlib", "Zstd"]

#: What a record may become when it is decompressed: sixty-four times the largest value of `Caps`. A few kilobytes
#: can be made to become gigabytes.
MOST_BYTES: Final = 64 << 20
#: Bytes that say by which key a record was encrypted, and those that make it another one each time.
_KEY_ID: Final = 4
_NONCE: Final = 12


class Fernet:
    """
    Encrypts with Fernet of ``cryptography`` (extra ``crypto``): AES-128 in CBC mode, signed, as text.

    Args:
        keys: Of ``Fernet.new_key()``. The first one writes, all of them read.
    """

    def __init__(self, *keys: str | bytes) -> None:
        _check_keys(keys)
        from cryptography import fernet  # noqa: PLC0415 - an extra

        self._fernet = fernet.MultiFernet([fernet.Fernet(key) for key in keys])
        self.digest_key = _digest_key(keys[-1].encode() if isinstance(keys[-1], str) else keys[-1])

    @staticmethod
    def new_key() -> bytes:
        """A key, by chance."""
        from cryptography import fernet  # noqa: PLC0415 - an extra

        return fernet.Fernet.generate_key()

    def encode(self, data: bytes) -> bytes:
        """*data*, encrypted."""
        return self._fernet.encrypt(data)

    def decode(self, data: bytes) -> bytes:
        """What was encrypted as *data*."""
        return self._fernet.decrypt(data)


class AesGcm:
    """
    Encrypts with AES-GCM of ``cryptography`` (extra ``crypto``): smaller and faster than `Fernet`.

    The nonce of a record is made by chance: change the key before it has written four thousand million records.

    Args:
        keys: Of ``AesGcm.new_key()``: 16, 24 or 32 bytes each. The first one writes, all of them read.
    """

    def __init__(self, *keys: bytes) -> None:
        _check_keys(keys)
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra

        self._ciphers = {hashlib.sha256(key).digest()[:_KEY_ID]: AESGCM(key) for key in keys}
        self._first = next(iter(self._ciphers.items()))
        self.digest_key = _digest_key(keys[-1])

    @staticmethod
    def new_key() -> bytes:
        """A key of 256 bits, by chance."""
        return os.urandom(32)

    def encode(self, data: bytes) -> bytes:
        """*data*, encrypted."""
        key_id, cipher = self._first
        nonce = os.urandom(_NONCE)
        return key_id + nonce + cipher.encrypt(nonce, data, key_id)

    def decode(self, data: bytes) -> bytes:
        """
        What was encrypted as *data*.

        Raises:
            ValueError: None of the keys did that.
        """
        key_id, nonce, text = data[:_KEY_ID], data[_KEY_ID : _KEY_ID + _NONCE], data[_KEY_ID + _NONCE :]
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            msg = f"it was encrypted with a key that is not among the {len(self._ciphers)} of this AesGcm"
            raise ValueError(msg)
        return cipher.decrypt(nonce, text, key_id)


class Zlib:
    """
    Compresses with zlib, which is always at hand.

    Args:
        level: From 1 (fast) to 9 (small).
        most_bytes: What a record may become when it is read; a larger one is refused.
    """

    #: What it writes anybody can read.
    encrypts = False

    def __init__(self, level: int = 6, *, most_bytes: int = MOST_BYTES) -> None:
        self._level = level
        self._most_bytes = most_bytes

    def encode(self, data: bytes) -> bytes:
        """*data*, compressed."""
        return zlib.compress(data, self._level)

    def decode(self, data: bytes) -> bytes:
        """
        What was compressed as *data*.

        Raises:
            ValueError: It is not whole, or becomes too large.
        """
        reading = zlib.decompressobj()
        found = reading.decompress(data, self._most_bytes)
        if not reading.eof:
            raise ValueError(_too_large(self._most_bytes) if reading.unconsumed_tail else "it is not whole")
        return found


class Zstd:
    """
    Compresses with Zstandard (extra ``zstd``): faster than `Zlib`, and smaller.

    Args:
        level: From 1 (fast) to 22 (small).
        most_bytes: What a record may become when it is read; a larger one is refused.
    """

    #: What it writes anybody can read.
    encrypts = False

    def __init__(self, level: int = 3, *, most_bytes: int = MOST_BYTES) -> None:
        import zstandard  # noqa: PLC0415 - an extra

        self._zstandard: Any = zstandard
        self._level = level
        self._most_bytes = most_bytes

    def encode(self, data: bytes) -> bytes:
        """*data*, compressed."""
        # An object of its own for each: they must not be shared by threads, and clients encode in some.
        compressed: bytes = self._zstandard.ZstdCompressor(level=self._level, write_checksum=True).compress(data)
        return compressed

    def decode(self, data: bytes) -> bytes:
        """
        What was compressed as *data*.

        Raises:
            ValueError: It becomes too large.
        """
        size: int = self._zstandard.get_frame_parameters(data).content_size
        if size > self._most_bytes:  # as it says; what it becomes is not larger, or it is refused
            raise ValueError(_too_large(self._most_bytes))
        found: bytes = self._zstandard.ZstdDecompressor().decompress(data)
        return found


class Chain:
    """
    Several hooks, one after the other: those given first are the first to see what is written.

    Args:
        codecs: At least one.
    """

    def __init__(self, *codecs: ValueCodec) -> None:
        _check_keys(codecs)
        self._codecs = codecs
        #: Whether one of them does.
        self.encrypts = any(map(encrypts, codecs))
        self.digest_key: bytes | None = next(filter(None, (getattr(each, "digest_key", None) for each in codecs)), None)

    def encode(self, data: bytes) -> bytes:
        """*data*, through all of them."""
        for codec in self._codecs:
            data = codec.encode(data)
        return data

    def decode(self, data: bytes) -> bytes:
        """What `encode` made *data* of."""
        for codec in reversed(self._codecs):
            data = codec.decode(data)
        return data


def _digest_key(key: bytes) -> bytes:
    """Made of the key that was there first, so that digests stay the same when a new one is put before it."""
    return hashlib.blake2b(key, digest_size=32, person=b"durable digest").digest()


def _check_keys(given: Sequence[object]) -> None:
    if not given:
        msg = "at least one is needed"
        raise ValueError(msg)


def _too_large(most_bytes: int) -> str:
    return f"it becomes more than {most_bytes:,} bytes when it is decompressed: give most_bytes=, if it is sound"


_fits: tuple[type[ValueCodec], ...] = (Fernet, AesGcm, Zlib, Zstd, Chain)

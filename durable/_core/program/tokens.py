"""
The token of a callback: where it stands, and a part that nobody guesses, as text that is safe in a URL.

It says which run, and where in it, so that an answer which comes too late goes nowhere else and can be told why it is
refused. The nonce is made of a key of the file's, and recorded: so a token stays what it is in every replay, is that of
one attempt of the run, and one of another file is found out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any, Final

from durable._core.light_tuples import NamedTuple
from durable.errors import TokenMalformedError

#: What every token begins with: its version. Tokens are with others for months, so one of each version is understood.
_PREFIX: Final = "cb1_"
_NONCE_BYTES: Final = 12
#: In bytes; the ids of runs are shorter than that.
_LONGEST: Final = 4_096


class Place(NamedTuple):
    """What a token says."""

    run_id: str
    position: str
    nonce: str


def make_nonce(key: str, run_id: str, position: str, attempt: int) -> str:
    """The nonce of the callback at *position*, in one attempt of a run."""
    data = f"{run_id}\n{position}\n{attempt}".encode("utf-8", "surrogatepass")
    return _text(hashlib.blake2b(data, digest_size=_NONCE_BYTES, key=key.encode()[:64]).digest())


def make_token(run_id: str, position: str, nonce: str) -> str:
    """The token of the callback at *position*."""
    return _PREFIX + _text(_bytes(nonce) + f"{position} {run_id}".encode("utf-8", "surrogatepass"))


def read_token(token: str) -> Place:
    """
    What *token* says.

    Raises:
        TokenMalformedError: It is none.
    """
    given: Any = token
    if not isinstance(given, str):
        raise TokenMalformedError(f"found {type(given).__name__} instead of a text")
    if not given.startswith(_PREFIX):
        raise TokenMalformedError(f"it does not begin with {_PREFIX!r}")
    if len(given) > _LONGEST:
        raise TokenMalformedError(f"it has {len(given):,} characters")
    try:
        data = _bytes(given.removeprefix(_PREFIX))
        position, _, run_id = data[_NONCE_BYTES:].decode().partition(" ")
    except (ValueError, binascii.Error):  # UnicodeError is a ValueError
        raise TokenMalformedError("it was cut off or changed") from None
    if not position or not run_id or make_token(run_id, position, _text(data[:_NONCE_BYTES])) != given:
        raise TokenMalformedError("it was cut off or changed")
    return Place(run_id, position, _text(data[:_NONCE_BYTES]))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)

"""
A journal as an argument: a run continues from it, here or anywhere.
"""

from __future__ import annotations

import base64
import zlib
from typing import Final

from temporalio.common import RawValue

from durable._core.codec.json_text import dumps, loads
from durable._core.recorded.export_format import Header, RunHistory, export_lines, header_line
from durable._core.recorded.export_reader import read_export
from durable._core.release import RELEASE
from durable._shell.storage.copies.marks import SCHEMA_VERSION
from durable.temporal._wire.payloads import packed, unpacked_text

#: Marks one among arguments; and one whose run waits for a person before it continues.
CARRIED: Final = "journal"
HELD: Final = "held journal"


def packed_journal(history: RunHistory, *, held: bool = False) -> RawValue:
    """A journal as an argument; *held*: its run arrives paused."""
    lines = "\n".join([header_line(Header(RELEASE, SCHEMA_VERSION, "")), *export_lines(history)])
    return packed(dumps(base64.b64encode(zlib.compress(lines.encode(), 6)).decode()), HELD if held else CARRIED)


def unpacked_journal(raw: RawValue) -> RunHistory:
    """What `packed_journal` packed."""
    lines = zlib.decompress(base64.b64decode(loads(unpacked_text(raw)))).split(b"\n")
    (found,) = read_export(lines, "a journal among arguments")
    return found

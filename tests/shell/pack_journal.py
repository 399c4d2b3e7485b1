"""
Makes `durable/_shell/storage/packed_journal.py` anew, as is needed whenever the tables of a journal change.

    python -m tests.shell.pack_journal
"""

from __future__ import annotations

import base64
import contextlib
import struct
import zlib
from pathlib import Path

from durable._shell.storage import schema
from durable._shell.storage.connections import connected

#: Stands where the instant goes at which a journal was created, and nowhere else.
CREATED = struct.unpack(">d", b"created?")[0]

MODULE = Path(schema.__file__).with_name("packed_journal.py")
TEXT = '''"""
An empty journal as SQLite makes it of `schema`, compressed. Made by ``python -m tests.shell.pack_journal``.

A test holds that it is that.
"""

from __future__ import annotations

from typing import Final

#: When it was created: the bytes of this number are there once, and replaced.
CREATED: Final = {created}

PACKED: Final = (
{lines}
)
'''


def empty_journal() -> bytes:
    """What SQLite makes of the statements of `schema`."""
    with contextlib.closing(connected("", "memory")) as conn:
        schema.prepare_tables(conn, CREATED)
        return conn.serialize()


def main() -> None:
    """Write the module."""
    packed = base64.b64encode(zlib.compress(empty_journal(), 9)).decode()
    lines = (f'    b"{packed[at : at + 112]}"' for at in range(0, len(packed), 112))
    MODULE.write_text(TEXT.format(created=repr(CREATED).replace("e+", "e"), lines="\n".join(lines)), encoding="utf-8")


if __name__ == "__main__":
    main()

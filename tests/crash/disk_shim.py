"""
Python's side of `disk_shim.c`: builds it, and runs a program of ours with it between that program and its disk.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
#: Why it cannot be used here, if so.
MISSING = (
    "needs gcc"
    if shutil.which("gcc") is None
    else "the shim is for Linux"
    if not sys.platform.startswith("linux")
    else None
)
#: How many calls a fault that does not go away hits.
FOREVER = 10**9


class Shim:
    """The shim in this process, which was started by `under`."""

    def __init__(self) -> None:
        self._library = library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        library.shim_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_char_p, ctypes.c_long]
        library.shim_calls.restype = library.shim_hits.restype = ctypes.c_long
        library.shim_trace.argtypes = [ctypes.c_char_p]

    def arm(self, action: str, at: int = 1, *, kind: str = "*", count: int = 1) -> None:
        """Act on the *at*th call from now on, and on those behind it: so many in all."""
        self._library.shim_arm(kind.encode(), at, action.encode(), count)

    def disarm(self) -> None:
        self.arm("", count=0)

    def trace(self, path: Path) -> None:
        """Append a record of each call from now on to *path*."""
        self._library.shim_trace(str(path).encode())

    @property
    def calls(self) -> int:
        return self._library.shim_calls()

    @property
    def hits(self) -> int:
        return self._library.shim_hits()


def folder() -> Path:
    """Where the files are whose calls are seen by the shim."""
    return Path(os.environ["DISK_SHIM_FOLDER"])


def is_under() -> bool:
    """Whether this process has the shim between itself and its disk."""
    return "disk_shim" in os.environ.get("LD_PRELOAD", "")


def under(program: str | Path, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """Run *program* with the shim."""
    with tempfile.TemporaryDirectory(prefix="disk-") as scratch:
        shim = Path(scratch) / "disk_shim.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", shim, HERE / "disk_shim.c", "-ldl"], check=True)
        journals = Path(scratch) / "journals"
        journals.mkdir()
        environment = {**os.environ, "LD_PRELOAD": str(shim), "DISK_SHIM_FOLDER": str(journals)}
        command = [sys.executable, str(program), *map(str, arguments)]
        return subprocess.run(command, env=environment, text=True, check=False, **options)

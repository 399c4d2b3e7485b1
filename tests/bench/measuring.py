"""
What the workloads measure with: clock, memory, file sizes, percentiles. Standard library only.
"""

import ctypes
import gc
import math
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

clock = time.perf_counter

#: Page size of most systems, and what SQLite's own pages come in.
KIB = 1024


def percentile(values: Sequence[float], share: float) -> float:
    """
    The smallest of *values* that *share* of them do not exceed (nearest rank).
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latencies(values: Sequence[float], prefix: str) -> dict[str, float]:
    """
    p50, p99 and maximum of *values* (seconds), in milliseconds.
    """
    return {
        f"{prefix}_p50_ms": percentile(values, 0.5) * 1e3,
        f"{prefix}_p99_ms": percentile(values, 0.99) * 1e3,
        f"{prefix}_max_ms": max(values) * 1e3,
    }


def memory() -> dict[str, int]:
    """
    This process's resident memory in bytes: now (rss), its anonymous part, and the peak so far.

    Empty where there is no /proc: nothing is then claimed about memory.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    names = {"VmRSS": "rss", "RssAnon": "anonymous", "VmHWM": "peak"}
    found = (line.split(":", 1) for line in lines if ":" in line)
    return {names[name]: int(value.split()[0]) * KIB for name, value in found if name in names}


def collect() -> None:
    """
    Free what nothing refers to any more; the allocator may keep the pages.
    """
    for _ in range(3):  # finalizers may free more
        gc.collect()


def trim() -> bool:
    """
    Ask the C allocator to hand free pages back to the system; False where it has no such call.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return False
    return True


def disk_bytes(path: Path) -> int:
    """
    Sizes of a database, its WAL and its shared memory, from the file system.
    """
    return sum(file.stat().st_size for end in ("", "-wal", "-shm") if (file := Path(f"{path}{end}")).exists())


def ask(path: Path, query: str) -> list[tuple]:
    """
    Rows of *query*, asked after the engine has closed the file.
    """
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def cores() -> int:
    """
    Cores this process may use.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

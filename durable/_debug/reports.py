"""
A divergence as people read it: what was recorded, what the code asks for, and the lines of both.
"""

from __future__ import annotations

import os
import sys

from durable._debug.sources import text_at
from durable.errors import DurableError, NondeterminismError


def report_lines(error: DurableError) -> list[str]:
    """The report of *error*; for a divergence followed by both places, with today's line where there is source."""
    lines = [str(error)]
    if isinstance(error, NondeterminismError):
        lines.append(f"  recorded at {error.recorded_site or 'an unknown place'}: {error.recorded}")
        asked = f"  today    at {error.requested_site or 'the end'}: {error.requested}"
        text = line_at(error.requested_site)
        lines.append(f"{asked}    | {text}" if text else asked)
    return lines


def line_at(site: str) -> str:
    """
    The source line of a recorded site ("folder/file.py:12"), as it is today.

    Empty where the file is not loaded, or has no source (a frozen program).
    """
    file, _, line = site.rpartition(":")
    path = loaded_file(file)
    return text_at(path, int(line)) if path and line.isdecimal() else ""


def loaded_file(short: str) -> str | None:
    """The full path of a loaded module's file which ends with *short*, as sites are recorded."""
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if short and isinstance(path, str) and (path == short or path.endswith(os.sep + short)):
            return path
    return None

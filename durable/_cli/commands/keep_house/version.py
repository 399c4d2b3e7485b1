"""``durable version``."""

from __future__ import annotations

import platform
import sqlite3
from argparse import ArgumentParser, Namespace

from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import OK
from durable._core.release import RELEASE
from durable._shell.storage.copies.marks import SCHEMA_VERSION


def configure(_command: str, _parser: ArgumentParser) -> None:
    """No arguments of its own."""


def run(_command: str, _args: Namespace, out: Output) -> int:
    """Write the versions that matter in a report of a bug."""
    found = {
        "durable": RELEASE,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "schema": SCHEMA_VERSION,
        "platform": platform.platform(),
    }
    if out.json:
        out.value(found)
    else:
        for name, value in found.items():
            out.line(f"{name:<10} {value}")
    return OK

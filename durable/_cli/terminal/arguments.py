"""
What stands on the command line as a value: JSON (arguments of workflows, payloads of signals), text, labels, a cluster.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any


def json_argument(text: str) -> Any:
    """
    JSON on the command line.

    Raises:
        ArgumentTypeError: It is none.
    """
    try:
        return json.loads(text_argument(text), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        quoted = f"; a text is quoted, for the shell as well: '{json.dumps(text, ensure_ascii=False)}'"
        hint = quoted if text[:1].isalpha() and "'" not in text else ""
        msg = f"{text!r} is not JSON: {reason}{hint}"
        raise ArgumentTypeError(msg) from None


def _no_constant(name: str) -> Any:
    msg = f"{name} cannot be recorded"
    raise ValueError(msg)


def text_argument(text: str) -> str:
    """
    What SQLite can be asked for.

    Raises:
        ArgumentTypeError: The command line's bytes were no text.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = f"{text!r} is not UTF-8"
        raise ArgumentTypeError(msg) from None
    return text


def label_argument(text: str) -> tuple[str, str]:
    """
    A label on the command line: ``NAME=VALUE``.

    Raises:
        ArgumentTypeError: It is none.
    """
    name, equals, value = text_argument(text).partition("=")
    if not name or not equals:
        msg = f"{text!r} is not a label: give NAME=VALUE"
        raise ArgumentTypeError(msg)
    return name, value


def add_cluster(parser: ArgumentParser, *, required: bool = False) -> None:
    """The arguments that say which cluster."""
    parser.add_argument("--temporal", required=required, metavar="HOST:PORT", help="the frontend of a Temporal cluster")
    parser.add_argument("--namespace", default="default", metavar="NAME", help="there (default: default)")
    parser.add_argument(
        "--task-queue", default="durable", metavar="NAME", help="of the queue `default` (default: durable)"
    )

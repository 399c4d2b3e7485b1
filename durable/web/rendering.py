"""
Templates into text. Everything that comes out of a journal is escaped; what is not printable is shown as escapes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jinja2

from durable._cli.terminal.output import ago, instant, iso, printable
from durable._cli.terminal.values import value_in_short
from durable._core.durations import span


def rendered(template: str, context: Mapping[str, Any]) -> str:
    """The text of a template."""
    return _environment().get_template(template).render(context)


@functools.cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    filters: dict[str, Any] = made.filters
    filters.update(ago=ago, instant=instant, iso=iso, span=span, line=_line, count=_count, in_short=value_in_short)
    names: dict[str, Any] = made.globals
    names.update(short=shortened)
    return made


def _source(name: str) -> str | None:
    file = files("durable.web") / "templates" / name  # not a path: in one binary there are no files
    return file.read_text("utf-8") if file.is_file() else None


def _line(text: object, most: int = 400) -> str:
    """Text on one line, of at most so many characters."""
    shown = printable(str(text))
    return shown if len(shown) <= most else f"{shown[:most]}…"


def _count(number: int) -> str:
    return f"{number:,}"


def shortened(run_id: str) -> str:
    """An id as a table shows it: its beginning and end, where it is long."""
    shown = printable(run_id)
    return shown if len(shown) <= 26 else f"{shown[:12]}…{shown[-12:]}"  # noqa: PLR2004 - as wide as the ids that are made

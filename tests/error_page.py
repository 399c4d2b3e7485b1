"""
Writes the page *Errors* of the guide from the docstrings of the errors: `python -m tests.error_page`.

The first paragraph of each is the cause, the one that begins with "Way out:" what to do.
"""

import inspect
import re
from collections.abc import Iterator

import durable
from durable import _face, errors
from tests.documents import GUIDE

PAGE = GUIDE / "errors.md"
#: Headings, and the classes that errors below them are of: the last one that fits.
SECTIONS: dict[str, tuple[type[BaseException], ...]] = {
    "How runs, steps and requests end": (BaseException,),
    "Raised by steps, and in a workflow that is cancelled": (
        errors.Fatal, errors.RetryAfter, errors.Snooze, errors.RunCancelled,
    ),
    "Your program asked for something that cannot be": (errors.UsageError,),
    "Values": (errors.RecordError, errors.ExportFormatError),
    "The file and the machine": (errors.JournalError,),
}  # fmt: skip

INTRODUCTION = """\
Every error that this library raises on purpose, its cause, and the way out. All are in `durable`, and all are
`DurableError`s, but for `RunCancelled` and the two exception groups. A message says who, where, what was found and
expected, and what to do; attributes hold the same for programs. This page is made from the docstrings of
[`errors.py`](../../durable/errors.py), which has the tree of them at its top."""


def public_errors() -> list[type[BaseException]]:
    """
    Every public error, in the order in which `durable.errors` has them.
    """
    found = [getattr(durable, name) for name in _face.HOMES]
    classes = [each for each in found if inspect.isclass(each) and issubclass(each, BaseException)]
    order = {name: number for number, name in enumerate(vars(errors))}
    return sorted(classes, key=lambda each: order.get(each.__name__, 0))


def cause_and_way_out(error: type[BaseException]) -> tuple[str, str]:
    """
    What the docstring of an error says of both, in a line each.
    """
    paragraphs = [" ".join(each.split()) for each in (inspect.getdoc(error) or "").split("\n\n")]
    ways = [each.removeprefix("Way out: ") for each in paragraphs if each.startswith("Way out: ")]
    return _in_a_cell(paragraphs[0]), _in_a_cell(ways[0]) if ways else ""


def _in_a_cell(text: str) -> str:
    said = re.sub(r"`+", "`", text).replace("|", r"\|")
    return said[0].upper() + said[1:]


def page() -> str:
    """
    The page as it should be.
    """
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield from INTRODUCTION.splitlines()
    under: dict[str, list[type[BaseException]]] = {title: [] for title in SECTIONS}
    for error in public_errors():
        under[next(title for title in reversed(SECTIONS) if issubclass(error, SECTIONS[title]))].append(error)
    for title, found in under.items():
        yield from ["", f"## {title}", "", "| error | cause | way out |", "|---|---|---|"]
        for error in found:
            cause, way_out = cause_and_way_out(error)
            yield f"| `{error.__name__}` | {cause} | {way_out} |"
    yield from ["", "Next: [From Temporal](from-temporal.md)"]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

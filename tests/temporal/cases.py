"""
The table of cases in README.md: each that runs on both engines, or why it runs on one.

`pytest tests/temporal --write-cases` writes what it has found.
"""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent / "README.md"
_BEGIN, _END = "<!-- cases -->\n", "<!-- end of cases -->\n"
#: Fixtures whose parameter is the engine.
_ENGINES = ("engine_kind", "either_engine")
#: Tests of all cases, by suite and claim, before any is left out; and the names of those that failed.
CASES = pytest.StashKey[dict[tuple[str, str], list[pytest.Item]]]()
_FAILED = pytest.StashKey[set[str]]()


def engine_of(item):
    """The engine that a test is run on, if it is a case: an embedded one, or a server's."""
    found = item.callspec.params if hasattr(item, "callspec") else {}
    kinds = [found[each] for each in _ENGINES if each in found]
    return kinds[0] if kinds else "embedded" if item.get_closest_marker("needs_a_file") else ""


def case_of(item):
    """Its suite, and what it claims: its name without the engine's."""
    suite = item.path.relative_to(item.config.rootpath).as_posix()
    given = dict(item.callspec.params) if hasattr(item, "callspec") else {}
    for each in _ENGINES:
        given.pop(each, None)
    name = item.originalname.removeprefix("test_").replace("_", " ")
    words = [str(getattr(each, "__name__", getattr(each, "name", each))).replace("_", " ") for each in given.values()]
    return suite, f"{name}: {', '.join(words)}" if words else name


def collect(config, items):
    """Note all cases among *items*."""
    found = config.stash.setdefault(CASES, {})
    for item in items:
        if engine_of(item):
            found.setdefault(case_of(item), []).append(item)


def note(config, item, report):
    """Note how a case has ended."""
    if report.failed:
        config.stash.setdefault(_FAILED, set()).add(item.nodeid)


def has_failed(item):
    """Whether it has failed so far."""
    return item.nodeid in item.config.stash.get(_FAILED, set())


def rows(config):
    """The rows of the table, by suite, of all that was collected."""
    found: dict[str, list[str]] = {}
    for (suite, claim), items in config.stash.get(CASES, {}).items():
        embedded = _how([item for item in items if engine_of(item) == "embedded"])
        server = _how([item for item in items if engine_of(item) != "embedded"])
        found.setdefault(suite, []).append(f"| {claim} | {embedded} | {server} | {_remark(items[0])} |")
    return found


def _how(items):
    if not items:
        return "-"
    return "failed" if any(map(has_failed, items)) else "✓"


def _remark(item):
    if (mark := item.get_closest_marker("needs_a_file")) is not None:
        return mark.args[0]
    return "; ".join(kind.text for mark in item.iter_markers("differs") for kind in mark.args)


def listed():
    """The rows that README.md has, by suite."""
    _, _, table = README.read_text().partition(_BEGIN)
    found: dict[str, list[str]] = {}
    suite = ""
    for line in table.partition(_END)[0].splitlines():
        if heading := re.match(r"### \[`(.*)`\]", line):
            suite = f"tests/temporal/{heading[1]}"
        elif line.startswith("| ") and not line.startswith("| case |"):
            found.setdefault(suite, []).append(line)
    return found


def write(config):
    """Write the table into README.md."""
    text = README.read_text()
    parts = []
    for suite, lines in sorted(rows(config).items()):
        path = suite.removeprefix("tests/temporal/")
        table = [
            "| case | embedded | Temporal | what is otherwise there, or why it is not run there |",
            "|---|---|---|---|",
        ]
        parts.append("\n".join([f"### [`{path}`]({path})", "", *table, *lines, ""]))
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    README.write_text(f"{before}{_BEGIN}\n{chr(10).join(parts)}\n{_END}{after}")

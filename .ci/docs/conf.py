"""
How `make docs` makes HTML: the pages of the repository as they are, and a reference from the docstrings.

Nothing is fetched while it is built, nor when it is read.
"""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import durable  # noqa: E402 - of this folder, whatever is installed
from durable import _names  # noqa: E402

project, release, html_title = "durable", durable.__version__, f"durable {durable.__version__}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "examples/README.md",
    "examples/*/*.md",
    "durable/README.md",
    "tests/README.md",
    "tests/bench/README.md",
    ".ci/docs/reference.md",
]
default_role = "code"  # what `stands so` in our docstrings
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
suppress_warnings = [
    "myst.xref_missing",  # links to folders, which only the repository has; its tests follow them
    "misc.highlighting_failure",  # a drawing in Mermaid, which is text here
]

_INDEX = (ROOT / "examples" / "guide" / "README.md").read_text(encoding="utf-8")
#: What stands below a page in the list of contents. The pages themselves know nothing of Sphinx.
CONTENTS = {
    "README": [
        "/examples/guide/README", "/.ci/docs/reference", "/examples/README", "/CHANGELOG", "/tests/README",
        "/durable/README",
    ],
    "examples/guide/README": re.findall(r"^\| \[.*?\]\(([\w-]+)\.md\)", _INDEX, re.MULTILINE),
    "examples/README": ["debugging/walkthrough"],
    "tests/README": ["bench/README"],
}  # fmt: skip


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", complete)
    app.connect("autodoc-process-docstring", mark_code, priority=400)  # before napoleon reads its sections


def complete(_app: Any, page: str, source: list[str]) -> None:
    """Add to a page what only these HTML pages have."""
    if page == ".ci/docs/reference":
        source[0] += reference()
    if page in CONTENTS:
        source[0] += "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(CONTENTS[page]) + "\n```\n"


def reference() -> str:
    """Directives for every public name."""
    sections: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": []}
    for name in _names.HOMES:
        value = getattr(durable, name)
        if not inspect.isclass(value):
            kind, section = "function" if callable(value) else "data", "Functions"
        elif issubclass(value, BaseException):
            kind, section = "exception", "Errors"
        else:
            kind, section = "class", "Classes"
        sections[section].append(f".. auto{kind}:: durable.{name}\n")
    return "\n".join(f"## {title}\n\n```{{eval-rst}}\n{chr(10).join(found)}```\n" for title, found in sections.items())


def mark_code(_app: Any, _what: str, _name: str, _value: Any, _options: Any, lines: list[str]) -> None:
    """Make code of what our docstrings have indented between two paragraphs: Sphinx would take it for a quotation."""
    marked: list[str] = []
    above = ""  # the last line that is not indented
    for line in lines:
        is_indented = line.startswith("    ")
        if is_indented and marked and not marked[-1].strip() and not above.endswith(":") and not _is_code(marked):
            marked += [".. code-block:: python", ""]
        if line.strip() and not is_indented:
            above = line
        marked.append(line)
    lines[:] = marked


def _is_code(lines: list[str]) -> bool:
    """Whether the lines end within a block that is marked."""
    return next((line for line in reversed(lines) if line and not line.startswith("    ")), "").startswith(".. code")

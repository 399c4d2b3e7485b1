"""
What is asked of the documents: to run their Python blocks, and where their links lead.
"""

import re
import sys
import types
from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "examples" / "guide"


def run_blocks(path, monkeypatch):
    """
    Runs each block marked `python`, in order and in one namespace, in the current folder.

    A block that needs a stage set is preceded by `<!-- invisible-code-block: python ... -->`.
    """
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(path)
    # The blocks live in a module: classes look up their own to resolve annotations.
    module = types.ModuleType(path.name.replace(".", "_").replace("-", "_").lower())
    monkeypatch.setitem(sys.modules, module.__name__, module)
    document.namespace = vars(module)
    for example in document.examples():
        example.evaluate()


def links(path):
    """
    The links of a page to files: what they name, and the heading there, which may be empty.
    """
    found = re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", path.read_text(encoding="utf-8"))
    return [(name, heading) for name, heading in found if name or heading]


def headings(path):
    """
    The headings of a page as links name them.
    """
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(path):
    """
    Those of a page that lead to no file, or to no heading of it.
    """
    broken = []
    for name, heading in links(path):
        target = path.parent / name if name else path
        if not target.exists() or (heading and target.suffix == ".md" and heading not in headings(target)):
            broken.append(f"{name}#{heading}" if heading else name)
    return broken

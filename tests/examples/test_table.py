"""
The tables of `examples/README.md` name what is there, and all of it.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")


def rows_of(table):
    """
    The cells of each row of the table that begins with the header *table*.
    """
    lines = README.splitlines()
    start = lines.index(table) + 2  # a line of dashes follows
    length = next((n for n, line in enumerate(lines[start:]) if not line.startswith("|")), len(lines) - start)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[start : start + length]]


SHOWN = rows_of("| example | shows |")
FEATURES = rows_of("| | feature | test | example |")


@cache
def functions_of(path):
    """
    The names of all tests of a file.
    """
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


def test_every_example_has_a_row():
    """
    Each file is listed once, under its own link, and a folder that is one example under its name; nothing else is.
    """
    linked = [re.fullmatch(r"\[`(.+)`\]\((.+)\)", cell) for cell, _ in SHOWN]
    assert all(link and link[2].startswith(link[1]) for link in linked), SHOWN
    folders = {f"{path.parent.name}/" for path in EXAMPLES.glob("*/__main__.py")}
    files = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")}
    files = {name for name in files if not name.startswith(tuple(folders))}
    assert sorted(link[1] for link in linked) == sorted(files | folders)


@pytest.mark.parametrize("row", FEATURES, ids=lambda row: "-".join(row[:2]))
def test_a_feature_is_tested_and_shown(row):
    """
    The tests and the example of each row exist.
    """
    _, _, tests, example = row
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
    assert named
    assert tests == " ".join(f"`{path}::{name}`" for path, name in named)
    assert [(path, name) for path, name in named if name not in functions_of(path)] == []
    assert example == "-" or example in {cell for cell, _ in SHOWN}


def test_each_feature_has_one_row():
    """
    Rows are numbered from 1 on, and no feature stands twice.
    """
    numbers = [int(number) for number, *_ in FEATURES]
    assert numbers == list(range(1, 60))
    assert len({feature for _, feature, *_ in FEATURES}) == len(FEATURES)


def test_every_example_shows_a_feature():
    """
    No example stands beside the table of features.
    """
    assert {cell for cell, _ in SHOWN} == {example for *_, example in FEATURES} - {"-"}

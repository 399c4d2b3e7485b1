"""The mutants of `make mutants` still fit the source, and the tests that are to notice them exist."""

import ast
import re

import pytest

from tests.crash.mutants import MUTANTS, ROOT, changed


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.breaks.replace(" ", "_"))
def test_a_mutant_is_another_program_and_has_its_test(mutant):
    source = (ROOT / mutant.file).read_text()
    assert ast.dump(ast.parse(changed(mutant, source))) != ast.dump(ast.parse(source))
    file, _, name = mutant.test.partition("::")
    assert not name or f"def {name}(" in (ROOT / file).read_text()


def test_every_promise_has_a_test_that_a_mutant_proves():
    """Each row of the tables under "What survives what" links a test, and a mutant must be killed by that very test."""
    section = re.search(r"## What survives what\n(.*?)\n## ", (ROOT / "tests" / "README.md").read_text(), re.DOTALL)
    assert section
    rows = [line for line in section[1].splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| when this happens |", "| | |"))]
    assert len(promises) == 34
    proved = {mutant.test for mutant in MUTANTS}
    for promise in promises:
        tests = [f"tests/{file}::{name}" for name, file in re.findall(r"\[`(\w+)`\]\(([\w/]+\.py)\)", promise)]
        assert tests, promise
        assert proved.issuperset(tests), f"no mutant is to be killed by {set(tests) - proved}"


def test_every_mutant_breaks_something_of_its_own():
    assert len({mutant.breaks for mutant in MUTANTS}) == len(MUTANTS)

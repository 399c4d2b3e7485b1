"""The mutants of `make mutants` still fit the source, and the tests that are to notice them exist."""

import ast

import pytest

from tests.crash.mutants import MUTANTS, ROOT, changed


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.breaks.replace(" ", "_"))
def test_a_mutant_is_another_program_and_has_its_test(mutant):
    source = (ROOT / mutant.file).read_text()
    assert ast.dump(ast.parse(changed(mutant, source))) != ast.dump(ast.parse(source))
    file, _, name = mutant.test.partition("::")
    assert not name or f"def {name}(" in (ROOT / file).read_text()


def test_every_mutant_breaks_something_of_its_own():
    assert len({mutant.breaks for mutant in MUTANTS}) == len(MUTANTS)

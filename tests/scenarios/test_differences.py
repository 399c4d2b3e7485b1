"""
What is otherwise on a Temporal server is told to users.
"""

from pathlib import Path

import pytest

from tests.scenarios import differences

GUIDE = Path(__file__).parents[2] / "examples" / "guide" / "temporal.md"
KINDS = [each for each in vars(differences).values() if isinstance(each, differences.Difference)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.row)
def test_each_kind_of_difference_has_its_row_in_the_guide(kind):
    """
    In the table "What differs", which begins with the same words.
    """
    _, _, table = GUIDE.read_text().partition("## What differs")
    assert [line for line in table.splitlines() if line.startswith(f"| {kind.row}")]

"""
The table of cases in README.md.
"""

from pathlib import Path

import pytest

from tests.temporal import cases

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def test_the_table_of_cases_lists_each_case(request):
    """
    With what is otherwise on a server, or why it is not run there: `pytest tests/temporal --write-cases` writes it.
    """
    if request.config.getoption("--write-cases"):
        pytest.skip("it is written at the end")
    listed = cases.listed()
    for suite, rows in cases.rows(request.config).items():
        assert listed.get(suite) == rows, suite


def test_each_file_of_scenarios_is_run_here():
    """
    So that none is added that knows a file alone, in silence.
    """
    here = {path.name for path in Path(__file__).parent.glob("test_*.py")} - {"test_cases.py"}
    assert here == {path.name for path in SCENARIOS.glob("test_*.py")} - {"test_differences.py"}

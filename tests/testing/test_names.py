"""
The public names of `durable.testing`: all there, documented, and loaded only when they are used.
"""

import subprocess
import sys

import pytest

from durable import testing

# A new name is added here and in the documents.
DOCUMENTED = """
    CONSISTENT KINDS STRICT
    AutojumpLoop Call Effect Fault GlitchError Ledger Outcome Scenario StepRun Survived VirtualClock
    assert_commands assert_same_journal every_crash every_glitch journal_lines parametrize_faults
    parametrize_histories replaced run_step
""".split()  # noqa: SIM905 - a list of words, in lines that mean something


def test_all_is_the_documented_list():
    """
    Nothing missing, and nothing that nobody was told about.
    """
    assert sorted(testing.__all__) == sorted(DOCUMENTED)
    assert set(testing.__all__) <= set(dir(testing))


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_name_is_there_and_says_what_it_is(name):
    """
    Loaded at its first use.
    """
    found = getattr(testing, name)
    if not isinstance(found, tuple):
        assert found.__doc__


def test_a_name_that_is_none():
    """
    As of any module.
    """
    with pytest.raises(AttributeError, match="has no attribute 'every_crush'"):
        _ = testing.every_crush


def test_importing_it_loads_nothing_of_the_engine():
    """
    Pytest does so in every project where durable is installed.
    """
    code = (
        "import sys, durable.testing.plugin; "
        "print([name for name in sys.modules if name.startswith(('durable._', 'anyio', 'structlog', 'hypothesis'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout

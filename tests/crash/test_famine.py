"""
A moment without memory, or disk, in a busy process: it passes. `python tests/crash/famine.py` for all that may be gone;
threads and descriptors: `tests/shell/test_supervision.py`.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import famine


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_moment_without_passes(tmp_path, kind):
    """
    The engine is not dead, resumes by itself, and each run that was accepted ends with what it should.
    """
    found = famine.verdict(tmp_path, kind, "busy", 0.3)
    assert found.startswith("fine"), found

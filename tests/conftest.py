"""
What every test shares: the event loop's kind, Hypothesis's manners, a path for a journal.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: a slow disk or a busy machine is not a wrong answer. In CI the same examples every
# time, so that a red run means the change; at a desk fresh ones, so that new cases are found.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """
    asyncio only: anyio's own fixture would run every test on trio as well wherever trio is installed.
    """
    return "asyncio"


@pytest.fixture
def tmp_db(tmp_path: Path) -> Path:
    """
    Where a test's journal goes; nothing is there yet.
    """
    return tmp_path / "app.db"

"""
What tests of examples share: the example as a module, and processes that run code which imports it.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import children

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example(request):
    """
    The example that the tests' file is called after, as a module.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)  # workers of a process pool import it by name
        yield importlib.import_module(request.path.stem.removeprefix("test_"))


class Child(children.Popen):
    """A process that runs *code*, with the examples to import."""

    def __init__(self, code, *arguments):
        paths = os.pathsep.join(filter(None, [str(EXAMPLES), *sys.path]))
        super().__init__(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
        )

    def ended(self):
        """Its exit code and what it printed, when it has ended."""
        output, _ = self.communicate(timeout=20)
        return self.returncode, output


@pytest.fixture
def start():
    """
    Starts such processes, and kills those that are left.
    """
    children = []

    def started(code, *arguments):
        children.append(Child(code, *arguments))
        return children[-1]

    yield started
    for child in children:
        child.kill()
        child.communicate()

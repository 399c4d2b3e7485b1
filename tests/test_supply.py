"""
Where the package comes from: what it is made of is known by hash, and which versions are the oldest.
"""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def pinned(path):
    """
    Names, and the exact versions and the rest of the lines of a list for pip.
    """
    lines = re.findall(r"^([\w.-]+)==(\S+) *(.*)$", path.read_text(), re.MULTILINE)
    return {name: (version, rest) for name, version, rest in lines}


def test_what_the_package_is_made_of_is_known_by_hash():
    """
    In the versions that the tests have; all that `pyproject.toml` needs to run and to be built is there.
    """
    hashed, constrained = pinned(ROOT / ".hashes.txt"), pinned(ROOT / ".constraints.txt")
    project = (ROOT / "pyproject.toml").read_text()
    assert {name: version for name, (version, _) in hashed.items()} == {
        name: version for name, (version, _) in constrained.items() if name in hashed
    }
    assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", rest) for _, rest in hashed.values())
    needed = re.search(r"^dependencies = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE)[1]
    assert {*re.findall(r'"([\w.-]+)[^"]*"', needed), "hatchling"} <= hashed.keys()


def test_the_oldest_versions_are_named_for_each_package():
    """
    `make test-lowest` asks for them; one that has no lower bound is told.
    """
    found = runpy.run_path(str(ROOT / "tests" / "lowest.py"))["lowest"]()
    assert {"aiosqlite", "anyio", "attrs", "structlog", "cryptography", "starlette"} <= found.keys()

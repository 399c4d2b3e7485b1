"""
The oldest versions that `pyproject.toml` allows, as constraints for pip: `make test-lowest` tries them.

Of the package itself and of the extras that users install; what only tests and checks need is today's.

    python tests/lowest.py > .lowest.txt
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Extras for those who develop it: which versions they have is told to nobody.
OWN = {"test", "lint", "examples", "binary", "browser", "pydantic-ai"}


def lowest() -> dict[str, str]:
    """
    Names of packages, and the oldest version of each that somebody may have.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for name, each in project["optional-dependencies"].items() if name not in OWN]
    found: dict[str, str] = {}
    for needed in [project["dependencies"], *extras]:
        for line in needed:
            matched = re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", line)
            if matched is None:
                sys.exit(f"no lower bound in {line!r}: say which version is the oldest that works")
            found[matched[1]] = matched[2]
    return found


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in lowest().items()))

"""
Where the package comes from: whoever builds a commit anew gets the files that were released.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What a build reads.
SOURCES = ("durable", "pyproject.toml", "README.md", "LICENSE", ".gitignore")
BUILD = "import sys; from hatchling.build import *; build_sdist(sys.argv[1]); build_wheel(sys.argv[1])"


def test_two_builds_of_one_commit_are_equal(tmp_path):
    """
    Byte for byte, wheel and sdist: in other folders, at another time, with another umask and order of hashes.
    """
    built = []
    for number, umask in enumerate((0o022, 0o077)):
        tree, out = tmp_path / f"tree-{number}", tmp_path / f"out-{number}"
        tree.mkdir()
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
            copy(ROOT / name, tree / name)
        for path in tree.rglob("*"):
            os.utime(path, (1e9 + number * 86_400, 1e9 + number * 86_400))
        env = {**os.environ, "PYTHONHASHSEED": str(number), "TZ": ("UTC", "Asia/Tokyo")[number]}
        subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=tree, env=env, umask=umask, check=True, timeout=50)
        built.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert sorted(Path(name).suffix for name in built[0]) == [".gz", ".whl"]
    assert built[0] == built[1]

"""
The daemon: killed in the middle of its work, it has taken in each file once.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "ingest"


@pytest.mark.long
@pytest.mark.timeout(240)
def test_each_file_is_taken_in_once_although_the_daemon_is_killed():
    """
    Killed with SIGKILL, started again, watched to its end, and ended by SIGTERM. Two files are spoilt.
    """
    paths = os.pathsep.join([str(FOLDER), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-c", "import taking_in; taking_in.run([], 60)"], env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=220, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "ended by SIGKILL: exit code -9" in ended.stdout
    assert "60 of 60 (100%)" in ended.stdout
    assert "ended by SIGTERM: exit code 0" in ended.stdout
    assert "58 files in the table, 58 done" in ended.stdout
    assert "spoilt: sensor-00020.csv, sensor-00030.csv" in ended.stdout

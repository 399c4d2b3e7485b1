"""
Real workers, short of time: one is killed while it executes, all are reloaded, and a second server takes over.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "examples" / "service"
#: After SIGKILL; the promise is one, and the machines of a build are slow.
SECONDS_TO_TAKE_OVER = 3.0


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_nothing_is_lost_or_doubled_however_the_workers_end(server):
    """
    Each order that was accepted is booked, once; those accepted twice under one key are one order.
    """
    trial = [sys.executable, SERVICE, "--server", server, "--workers", "2", "--seconds", "0.2"]
    done = subprocess.run(trial, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    started, ended = map(int, re.search(r"runs started (\d+), ended (\d+), lost 0, doubled 0\n", done.stdout).groups())
    assert started == ended > 0
    assert float(re.search(r"taken over after ([\d.]+) s", done.stdout)[1]) < SECONDS_TO_TAKE_OVER

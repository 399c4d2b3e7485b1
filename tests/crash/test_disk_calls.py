"""
Disk calls that fail, tear or are the last thing that the process does. `disk_calls.py` hits them one by one.

Fault: EIO, ENOSPC, EROFS or a short write at a write, sync, truncation or deletion, once or for a while; SIGKILL
before it, after it, in the middle of a write; SIGKILL again at the first, second, third ... call of the recovery.
What must hold: an engine that is open outlives it and ends its work by itself; one that is not says so with an error
of ours; the next life ends everything; nothing was lost, doubled or repeated.
"""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import disk_shim

pytestmark = [
    pytest.mark.skipif(disk_shim.MISSING is not None, reason=str(disk_shim.MISSING)),
    pytest.mark.timeout(240),  # on a busy machine: it takes seconds
]


def hit(*arguments):
    done = disk_shim.under(Path(__file__).parent / "disk_calls.py", *arguments, capture_output=True, timeout=200)
    return json.loads(done.stdout or "{}"), done


def test_it_does_not_matter_which_disk_call_fails_or_is_the_last():
    """P1, P2, P10, P11, P13: some of the calls here; `make soak` hits a thousand."""
    figures, done = hit("--every", 120, "--stays", 2, "--twice", 8)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(figures["hit"]) > {"kill", "killafter", "torn", "eio", "enospc", "erofs", "short"}
    assert sum(figures["hit"].values()) > 30


def test_an_engine_that_believes_in_commits_which_failed_is_found():
    """A harness that cannot complain proves nothing."""
    figures, done = hit(
        "--every", 250, "--stays", 0, "--twice", 0, "--actions", "enospc", "--bug", "believe_commits", "--patience", 3
    )
    assert done.returncode == 1
    assert figures["faults"] > 0, done.stdout + done.stderr

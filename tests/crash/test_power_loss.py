"""
The power is cut: what was not synced is gone, there, or torn. `power_loss.py` makes the images and opens them.

What must hold: with ``durability="full"`` nothing acknowledged is lost and no known outcome is made again, from any
image; with ``"process"`` the last commits may be lost, and every image is consistent and goes on.
"""

import json
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import disk_shim
from power_loss import Call, image

pytestmark = pytest.mark.timeout(240)  # on a busy machine: it takes seconds
needs_the_shim = pytest.mark.skipif(disk_shim.MISSING is not None, reason=str(disk_shim.MISSING))


def cut(*arguments):
    done = disk_shim.under(Path(__file__).parent / "power_loss.py", *arguments, capture_output=True, timeout=200)
    return json.loads(done.stdout or "{}"), done


@needs_the_shim
def test_full_durability_loses_nothing_in_a_power_cut():
    """P1, P2, P10."""
    figures, done = cut("--images", 40)
    assert done.returncode == 0, done.stdout + done.stderr
    assert figures["syncs"] > 20
    assert figures["acknowledged"] > 100


@needs_the_shim
def test_process_durability_may_lose_the_last_commits_and_stays_consistent():
    """What `tests/README.md` says of it; and the images do show what is lost, or the test above would prove nothing."""
    figures, done = cut("--images", 16, "--durability", "process")
    assert figures["lost"] > 0, done.stdout + done.stderr
    assert {figures[fault] for fault in ("stuck", "unusable")} == {0}, done.stdout + done.stderr


def made(*calls, mode="nothing", before=None):
    return {name: bytes(body) for name, body in image(before or {}, list(calls), mode, random.Random(1)).items()}


WRITTEN = Call("W", "f", 0, b"x" * 1024)
SYNCED = Call("S", "f", 0, b"")


def test_an_image_holds_what_was_synced_and_what_it_may_of_the_rest():
    assert made(WRITTEN) == {"f": b""}
    assert made(WRITTEN, mode="all") == {"f": b"x" * 1024}
    assert made(WRITTEN, SYNCED) == {"f": b"x" * 1024}
    assert made(WRITTEN, SYNCED, Call("T", "f", 10, b"")) == {"f": b"x" * 1024}
    assert made(WRITTEN, SYNCED, Call("T", "f", 10, b""), mode="all") == {"f": b"x" * 10}
    assert made(WRITTEN, SYNCED, Call("U", "f", 0, b"")) == {}
    assert made(Call("W", "f", 2, b"ab"), mode="all", before={"f": b"....."}) == {"f": b"..ab."}
    torn = {len(made(WRITTEN, mode="torn parts")["f"].strip(b"\0")) for _ in range(3)}
    assert torn <= {0, 512, 1024}

"""
The examples of the embedded engine, on a server: not a line of them changes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.temporal.dev_server import dev_server

ROOT = Path(__file__).resolve().parents[2]
#: What each prints last, whichever engine it runs on.
LAST = {
    "ride": "the server saw 2 requests and made 1 charge",
    "approval": "Ada, Bob, Cyd: approved by Mia, rejected by Mia, timed out",
    "etl": "3 pipelines, 12 extracts on one worker: ",
    "product_images": "two products are visible: ",
    "trip": "left at the desks: ['car Ada', 'flight Ada', 'hotel Ada']",
    "welcome": "track_signup_metrics after send_onboarding_tips: succeeded",
}


@pytest.fixture(scope="module")
def fresh_server(address, tmp_path_factory):
    """
    A server that has no runs of other tests: examples have keys.
    """
    with dev_server(tmp_path_factory.mktemp("examples")) as (found, _):
        yield found


def run_example(*command):
    """
    What it prints.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("name", LAST)
def test_an_example_runs_on_a_server_as_it_is(fresh_server, name):
    """
    Its own assertions hold, and it prints what it prints.
    """
    done = run_example("examples/scale_out/on_temporal.py", name, "--temporal", fresh_server)
    assert LAST[name] in done.rstrip().splitlines()[-1]


def test_work_moves_from_a_file_to_several_processes(fresh_server):
    """
    One of which is killed, and replaced: nothing is lost, and a mail that was being sent may go twice.
    """
    done = run_example("examples/scale_out", "--temporal", fresh_server)
    assert "orders shipped: 31 of 31; labels and mails: 93 of 93; twice: " in done

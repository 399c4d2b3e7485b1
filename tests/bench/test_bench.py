"""
The benchmark runs: every workload, very small, reports its figures. No timing is asserted.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")

WORKLOADS = [
    "raw",
    "W1",
    "lag",
    "beside",
    "W2",
    "W3",
    "fan",
    "waking",
    "queued",
    "W4",
    "W5",
    "W6",
    "replay",
    "look",
    "debug",
    "growing",
    "multicore",
    "import",
    "crash",
]
PROMISES = [
    "W1",
    "W2",
    "W3",
    "a job among",
    "ten at a time",
    "the end of a member",
    "queued jobs",
    "W4",
    "W5",
    "W6",
    "W6",
    "replay",
    "the same, with reading",
    "durable list",
    "durable.replay",
    "one command back",
    "check of many",
    "loop lag",
    "the longest",
    "beside a thread",
    "a late step",
    "a late signal",
    "a run in a full file",
    "all cores",
    "import durable",
    "exit after a crash",
]


@pytest.mark.timeout(110)
def test_every_workload_reports_its_figures(tmp_path):
    out = tmp_path / "figures.jsonl"
    ended = subprocess.run(
        [
            sys.executable,
            RUN,
            "--scale",
            "0.01",
            "--repeat",
            "1",
            "--data",
            tmp_path,
            "--out",
            out,
            "--plot",
            tmp_path / "growth.svg",
        ],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["workload"] for line in lines] == WORKLOADS
    assert all(line["median"] and not line["errors"] for line in lines)
    assert all(promise in ended.stdout for promise in PROMISES)
    assert not list(tmp_path.glob("bench-*")), "the journals were left behind"
    assert (tmp_path / "growth.svg").read_text(encoding="utf-8").count("<polyline") == 2


def test_waiting_runs_are_not_loaded_after_a_kill(tmp_path):
    """
    W5 counts what it claims: executions exist for the active runs and the new one, and for no other.
    """
    out = tmp_path / "figures.jsonl"
    ended = subprocess.run(
        [sys.executable, RUN, "--only", "W5", "--scale", "0.002", "--repeat", "1", "--data", tmp_path, "--out", out],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    found, params = line["median"], line["params"]
    assert found["loaded_in_all"] == params["active"] + 1
    assert found["still_waiting"] == params["waiting"]
    assert found["attempts_of_held"] == 2 * params["active"]


def test_every_peer_has_a_script_of_all_workloads():
    """
    What needs the network is set up by `make bench-peers` alone; its command line works without.
    """
    peers = Path(__file__).parent / "peers"
    done = subprocess.run([sys.executable, peers / "run.py", "--help"], check=True, capture_output=True, text=True)
    names = re.search(r"peers, separated by commas: ([\w,]+)", done.stdout)
    assert names
    assert {f"on_{name}.py" for name in names[1].split(",")} == {path.name for path in peers.glob("on_*.py")}
    for path in peers.glob("on_*.py"):
        assert "main(w1, w2, w3)" in path.read_text(encoding="utf-8")

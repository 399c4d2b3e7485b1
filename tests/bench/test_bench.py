"""
The benchmark runs: every workload, very small, reports its figures. No timing is asserted.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
STALLS = Path(__file__).with_name("stalls.py")
LARGE = Path(__file__).with_name("large.py")
PAGES = Path(__file__).with_name("pages.py")
#: Seconds after which a test hangs. Each workload has 180 of its own.
HANGS = 600

WORKLOADS = [
    "raw",
    "W1",
    "lag",
    "beside",
    "W2",
    "W3",
    "emitting",
    "transacting",
    "asking",
    "watching",
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
    "items emitted by one run",
    "an item against a step",
    "ask to answer",
    "a watcher on each",
    "an idle engine with",
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


def measured(folder, *options):
    """
    What the benchmark prints, and the lines that it writes.

    There is no limit but the one for what hangs: on a busy machine, or a slow disk, it takes as long as it takes.
    """
    out = folder / "figures.jsonl"
    command = [sys.executable, RUN, *options, "--repeat", "1", "--data", folder, "--out", out]
    ended = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


@pytest.mark.timeout(HANGS)
def test_every_workload_reports_its_figures(tmp_path):
    """
    All of them once, in passes of which a commit need not wait for the disk.
    """
    told, lines = measured(tmp_path, "--scale", "0.01", "--durability", "process", "--plot", tmp_path / "growth.svg")
    assert [line["workload"] for line in lines] == WORKLOADS
    assert all(line["median"] and not line["errors"] for line in lines)
    assert all(promise in told for promise in PROMISES)
    many = lines[WORKLOADS.index("W1")]["median"]
    assert many["rows_written"] <= many["event_rows"], "the journal has rows that the measure does not know"
    assert not list(tmp_path.glob("bench-*")), "the journals were left behind"
    assert (tmp_path / "growth.svg").read_text(encoding="utf-8").count("<polyline") == 2


@pytest.mark.timeout(HANGS)
def test_waiting_runs_are_not_loaded_after_a_kill(tmp_path):
    """
    W5 counts what it claims: executions exist for the active runs and the new one, and for no other.
    """
    _, (line,) = measured(tmp_path, "--only", "W5", "--scale", "0.002")
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
    names = re.search(r"peers, separated by commas: ([\w,]+)", " ".join(done.stdout.split()))
    assert names
    assert {f"on_{name}.py" for name in names[1].split(",")} == {path.name for path in peers.glob("on_*.py")}
    for path in peers.glob("on_*.py"):
        assert "main(w1, w2, w3)" in path.read_text(encoding="utf-8")


def test_a_workload_runs_on_the_loop_that_it_is_told(tmp_path):
    """
    For the row of ours on uvloop, which `make bench-peers` installs for it alone.
    """
    pytest.importorskip("uvloop")
    sizes = json.dumps({"steps": 2, "latency_runs": 1})
    code = "import sys, child; child.main(*sys.argv[1:]); print('uvloop' in sys.modules)"
    told = []
    for loop in ("asyncio", "uvloop"):
        place = tmp_path / loop
        place.mkdir()
        command = [sys.executable, "-c", code, "W2", place, sizes, "process", loop]
        ran = subprocess.run(command, cwd=RUN.parent, capture_output=True, text=True, timeout=HANGS, check=True)
        told.append(ran.stdout.split()[-1])
        assert {"steps_per_s", "inline_steps_per_s"} <= json.loads((place / "result.json").read_text()).keys()
    assert told == ["False", "True"]


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="loads a library before libc")
def test_the_disk_is_as_slow_as_it_is_told_to_be(tmp_path):
    """
    Of ours and of others alike: a commit is a sync at least, and a sync takes 20 ms.
    """
    _, lines = measured(tmp_path, "--only", "W2", "--scale", "0.1", "--sync-ms", "20")
    raw, alone = (line["median"] for line in lines)
    assert all(0 < rate <= 50 for rate in (raw["single_rows_per_s"], alone["steps_per_s"], alone["inline_steps_per_s"]))


def test_what_is_done_with_a_large_file_is_done_with_a_small_one(tmp_path):
    """
    Of sizes at which both are made in a second. The runs of the file are those that an engine could have written.
    """
    command = [sys.executable, LARGE, "--runs", "2500", "--small", "1000", "--repeats", "1", "--folder", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=True)
    size, *done = [json.loads(line) for line in ran.stdout.splitlines()]
    assert size["events"] == 25_000
    assert {"open", "stats", "durable show", "wake a run, to the result"} <= {each["done"] for each in done}
    sound = subprocess.run(
        [sys.executable, "-m", "durable", "doctor", "--thorough", "--db", tmp_path / "2500.db"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert re.search(r"ok +checksums of [\d,]+ events in the [\d,]+ runs", sound.stdout), sound.stdout
    assert "counted wrong" not in sound.stdout


def test_each_load_tells_how_long_it_holds_loop_and_writer(tmp_path):
    """
    Small, and no figure is asserted: something was timed on both, under each.
    """
    drawn = tmp_path / "stalls.svg"
    command = [sys.executable, STALLS, "--small", "--plot", drawn]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=True)
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    told = {each["load"]: each for each in found if "load" in each}
    assert {"for_each_jobs", "signals", "schedules", "prune_events", "import"} <= told.keys()
    assert all(f">{name} " in drawn.read_text(encoding="utf-8") for name in told)
    assert all(each["lag_max_ms"] > 0 and each["transactions"] > 0 for each in told.values())


def test_each_page_of_the_dashboard_is_timed():
    """
    Of a small file: every page answers, with all that it has to show.
    """
    command = [sys.executable, PAGES, "--runs", "200", "--events", "100", "--repeats", "1"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=True)
    told = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert len(told) > 20
    assert all(each["cpu_ms"] > 0 and each["bytes"] > 1_000 for each in told)

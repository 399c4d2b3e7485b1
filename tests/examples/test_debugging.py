"""
The debugging example: its walk-through is what the real debugger says, on the journal beside it.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from durable import read_histories
from durable._core.journal.events import StepInterrupted

EXAMPLE = Path(__file__).parents[2] / "examples" / "debugging"
WALKTHROUGH = EXAMPLE / "walkthrough.md"
BLOCK = re.compile(r"```console\n\$ (durable [^\n]*)\n(.*?)```", re.DOTALL)


#: In one unit or two.
AGE = re.compile(r"\d+(\.\d+)? (ms|s|min|h|d)( \d+ (s|min|h))?( ago)?(?=  |$)")


def carried_out(command: str, db: Path) -> str:
    """
    What a command of the walk-through says, in the example's folder. Ages depend on the day: they are "..." here.
    """
    words = shlex.split(command)
    environment = {**os.environ, "DURABLE_DB": str(db), "DURABLE_APP": "shop.py", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=EXAMPLE, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [AGE.sub("... ago", line) for line in done.stdout.splitlines()]
    heads = [re.sub(r"CREATED +", "CREATED  ", re.sub(r"(\.\.\. ago) +", r"\1  ", line)) for line in lines]
    return "".join(f"{line}\n" for line in heads)


def test_the_transcript_is_produced_by_the_real_debugger(tmp_path):
    """
    Each console block of the walk-through is carried out, in order, and compared.

    With UPDATE_WALKTHROUGH set, what was said is written into it instead.
    """
    text = WALKTHROUGH.read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == 5
    db = tmp_path / "shop.db"
    now = BLOCK.sub(lambda block: f"```console\n$ {block[1]}\n{carried_out(block[1], db)}```", text)
    if os.environ.get("UPDATE_WALKTHROUGH"):
        WALKTHROUGH.write_text(now, encoding="utf-8")
        pytest.fail("the walk-through was written anew: read it, and run without UPDATE_WALKTHROUGH")
    assert now == text


def test_the_journal_is_of_a_process_that_was_killed():
    """
    The exported run was taken up again by a second life, and names no path of the machine that recorded it.
    """
    runs = {each.run.run_id: each for each in read_histories(EXAMPLE / "order-2.jsonl")}
    order = runs["order-2"]
    assert order.run.status == "failed"
    assert any(isinstance(event, StepInterrupted) and event.crashed for event in order.events)
    assert "/srv/shop/" in (EXAMPLE / "order-2.jsonl").read_text(encoding="utf-8")

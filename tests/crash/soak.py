"""
`make soak`: one journal, hundreds of processes killed with SIGKILL at random moments, one after the other.

    soak.py [--kills 500] [--effects 200000] [--minutes 20] [--seed N] [--folder DIR]

Each life works off runs of every kind (steps in the loop and in threads, transactions, jobs, timers, signals, retries,
limits, follow-ups, batches, cancels: `victim.py`) until it is killed; the next one goes on, with new runs beside the
old ones. It ends when as many kills and effects as asked for have happened, or the time is over; a last life is left
alone until everything has ended. The ledger of effects is a file of its own, written and synced by the steps
themselves; `judge.py`, which knows nothing of the engine, says what was lost, doubled or stuck.

Prints what was injected and what was found. Exits with 1 if the judge complains or the counts were not reached.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import re
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from lives import Lives

KINDS = "bulk,line,family,bulk,loop,doomed,bulk,chain,batch,bulk"
#: What a complaint of the judge is about, by what it says.
VERDICTS = {
    "lost": r"acknowledged and never ended|nobody made|did not clean up|not there|has \d+ (children|members)|got the",
    "doubled transactional effects": r"row .* is there (?!once)|is not there once",
    "re-run after their recorded end": r"ran again after|changed|not its last|ran twice in one life",
    "stuck": r"did not end within",
}
#: Of these points of a commit, every tenth life kills itself at one (`killing.py`).
POINTS = ("before-begin", "before-commit", "after-commit", "before-dispatch", "after-dispatch", "child-ended")


def main() -> int:
    options = _options()
    os.environ["DURABLE_VICTIM_KINDS"] = KINDS
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="durable-soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        print(f"seed {options.seed}, journal and ledger in {folder}", flush=True)
        return _soak(folder, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500, help="at least so many (default 500)")
    parser.add_argument("--effects", type=int, default=200_000, help="at least so many in the ledger (default 200000)")
    parser.add_argument("--minutes", type=float, default=20.0, help="at most, with the judgement (default 20)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="of the moments; printed")
    parser.add_argument("--folder", type=Path, help="keep journal and ledger there")
    return parser.parse_args()


def _soak(folder: Path, options: argparse.Namespace) -> int:
    began, moments = time.monotonic(), random.Random(options.seed)
    deadline = began + 60.0 * options.minutes * 0.85  # the last life, and the judge, take their time
    lives = Lives(folder, runs=0)
    wanted = options.effects / options.kills  # effects a life
    injected: collections.Counter[str] = collections.Counter()
    number, effects = 0, 0
    while (lives.kills < options.kills or effects < options.effects) and time.monotonic() < deadline:
        lives.runs += max(10, round(wanted / 45))  # some 50 effects a run
        number += 1
        if number % 10 == 0:
            point = moments.choice(POINTS)
            if lives.until_point(point, moments.randrange(1, 60)):
                injected[f"SIGKILL {point}"] += 1
        else:
            recovery = number % 5 == 1
            lines = 1 if recovery else round(wanted * moments.uniform(0.2, 2.5))
            if lives.until_killed(lines, moments.uniform(0.0, 0.02)):
                injected["SIGKILL during recovery" if recovery else "SIGKILL at a random moment"] += 1
        effects = _count(lives.ledger)["effect"]
        if number % 25 == 0:
            print(f"  {lives.kills} kills, {effects:,} effects, {time.monotonic() - began:.0f} s", flush=True)
    complaints = lives.to_the_end(timeout=max(60.0, began + 60.0 * options.minutes - time.monotonic()))
    return _report(lives, injected, complaints, options, time.monotonic() - began)


def _count(ledger: Path) -> collections.Counter[str]:
    with ledger.open(encoding="utf-8") as lines:
        return collections.Counter(line[2 : line.index('"', 2)] for line in lines if line.endswith("\n"))


def _report(
    lives: Lives,
    injected: collections.Counter[str],
    complaints: list[str],
    options: argparse.Namespace,
    seconds: float,
) -> int:
    lines = _count(lives.ledger)
    with contextlib.closing(sqlite3.connect(lives.database)) as conn:
        ended, events = (
            conn.execute(query).fetchone()[0]
            for query in (
                "SELECT count(*) FROM durable_runs WHERE ended_at IS NOT NULL",
                "SELECT count(*) FROM durable_events",
            )
        )
        is_sound = conn.execute("PRAGMA integrity_check").fetchone()[0]
    print(f"seed {options.seed}, {seconds:.0f} s, one journal of {lives.database.stat().st_size:,} bytes: {is_sound}")
    for what, count in sorted(injected.items()):
        print(f"{count:>9,}  {what}")
    print(f"{sum(injected.values()):>9,}  kills in all")
    print(f"{lines['ack']:>9,}  starts acknowledged, {ended:,} runs ended, {events:,} events on disk")
    print(f"{lines['effect']:>9,}  effects checked")
    found = collections.Counter(dict.fromkeys(VERDICTS, 0))
    for complaint in complaints:
        verdict = next((name for name, said in VERDICTS.items() if re.search(said, complaint)), "other")
        found[verdict] += 1
    for verdict, count in found.items():
        print(f"{count:>9,}  {verdict}")
    for complaint in complaints[:20]:
        print(f"           {complaint}")
    reached = sum(injected.values()) >= options.kills and lines["effect"] >= options.effects
    if not reached:
        print(f"not reached: {options.kills:,} kills and {options.effects:,} effects in {options.minutes:g} minutes")
    if is_sound != "ok":
        print(json.dumps(is_sound))
    return 0 if reached and not complaints and is_sound == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())

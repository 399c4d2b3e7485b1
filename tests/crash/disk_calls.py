"""
Fails, tears or kills at the disk calls of a small load, one after the other: writes, syncs, truncations, deletions.

    disk_calls.py [--every K] [--actions kill,eio,...] [--seed S] [--stays N] [--twice N] [--bug NAME]

For each Kth call a fresh journal and a life in which that call is hit: the process dies before it, after it, or in
the middle of a write; or the call fails once (EIO, ENOSPC, EROFS, a short write). `--stays`: so many faults that do
not go away for half a second. `--twice`: so many lives that die, and whose successor dies during recovery.

What must hold: an engine that has opened the file outlives every failing call and ends its load; one that has not
says so with an error of ours. Whatever happened, the next life brings everything to its end, and the judge finds
nothing. Prints figures as JSON; exits with 1 if anything was found, or if nothing was hit.
"""

from __future__ import annotations

import argparse
import collections
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import threading
import time
from pathlib import Path

from attrs import frozen

sys.path.insert(0, str(Path(__file__).parent))
import disk_shim
import soak_judge
import soak_load
from soak import REFUSED, Life

DEADLY = ("kill", "killafter", "torn")
FAILING = ("eio", "enospc", "erofs", "short")
RUNS = 8
#: Seconds that a fault lasts which does not go away at once.
STAYS = 0.5


@frozen
class Case:
    """What is done to the first life, and to the one that recovers from that."""

    action: str
    at: int
    stays: bool = False
    again: int = 0


class Cases:
    """Tries cases, and counts."""

    def __init__(self, bug: str | None, patience: float) -> None:
        self.bug, self.patience = bug, patience
        self.shim = disk_shim.Shim()
        self.tried: collections.Counter[str] = collections.Counter()
        self.hit: collections.Counter[str] = collections.Counter()
        self.refused = 0
        self.effects = 0
        self.faults: list[str] = []

    def calls(self) -> int:
        """How many calls the load makes."""
        folder, seen = self._folder("count"), mmap.mmap(-1, 8)
        life = Life(
            folder, 1, runs=RUNS, before=lambda: self.shim.arm("count", count=disk_shim.FOREVER),
            after=lambda: seen.write(struct.pack("q", self.shim.calls)),
        )  # fmt: skip
        assert life.ended(self.patience) == 0, (folder / "errors").read_text()
        return struct.unpack("q", seen[:8])[0]

    def try_out(self, case: Case) -> None:
        """One case: a life that is hit, perhaps a second, and the last one; then the judge."""
        name = case.action + (" for a while" if case.stays else " twice" if case.again else "")
        folder = self._folder(f"{name}-{case.at}-{case.again}".replace(" ", "-"))
        self.tried[name] += 1
        found = list(self._lives(case, name, folder))
        if found:
            self.faults += [f"{case}: {each}" for each in found]
            if (errors := folder / "errors").exists():
                self.faults.append(errors.read_text()[-1500:])
        shutil.rmtree(folder)

    def _lives(self, case: Case, name: str, folder: Path):
        code, hits = self._hit(folder, 1, case.action, case.at, stays=case.stays, runs=RUNS)
        self.hit[name] += hits
        yield from self._verdict(case, code, hits)
        if case.again:
            code, hits = self._hit(folder, 2, case.action, case.again, last=True, patience=self.patience / 2)
            yield from self._verdict(case, code, hits)
            self.hit[f"{name}, the second"] += hits
        life = Life(folder, 3, last=True, patience=self.patience / 2)
        if (code := self._end(life)) != 0:
            yield f"the last life ended with {code}"
            return
        judged = soak_judge.judge(folder)
        self.effects += judged.effects + judged.rows
        for fault, sentences in judged.found.items():
            yield from (f"{fault}: {sentence}" for sentence in sentences[:3])

    def _verdict(self, case: Case, code: int | None, hits: int):
        if code == -signal.SIGKILL and case.action in DEADLY:
            return
        self.refused += code == REFUSED
        if code is None:
            yield "a life hung"
        elif code not in (0, REFUSED) or (code and not hits):
            yield f"a life ended with {code}"
        elif hits and case.action in DEADLY:
            yield f"a life was to die, and ended with {code}"

    def _hit(self, folder: Path, number: int, action: str, at: int, *, stays: bool = False, **options):
        """A life of which one call is hit: its exit code, and whether it was."""
        seen = mmap.mmap(-1, 8)

        def before() -> None:
            if self.bug:
                import planted

                planted.plant(self.bug)
            kind = "write" if action == "short" else "*"
            self.shim.arm(action, at, kind=kind, count=disk_shim.FOREVER if stays else 1)
            if stays:
                threading.Thread(target=lift, daemon=True).start()

        def lift() -> None:
            while not self.shim.hits:
                time.sleep(0.01)
            time.sleep(STAYS)
            seen[:8] = struct.pack("q", self.shim.hits)
            self.shim.disarm()

        def after() -> None:
            if self.shim.hits:
                seen[:8] = struct.pack("q", self.shim.hits)

        code = self._end(Life(folder, number, before=before, after=after, **options))
        return code, int(code == -signal.SIGKILL or struct.unpack("q", seen[:8])[0] > 0)

    def _end(self, life: Life) -> int | None:
        code = life.ended(self.patience)
        if code is None:
            life.send(signal.SIGKILL)
            life.ended()
        return code

    def _folder(self, name: str) -> Path:
        folder = disk_shim.folder() / name
        folder.mkdir()
        soak_load.prepare(folder)
        (folder / "ledger").touch()
        return folder


def in_processes(cases: Cases, wanted: list[Case], processes: int = 3) -> None:
    """Try them, some at once: in processes, because whoever forks lives may have no threads."""
    shares = []
    for number in range(processes):
        file = disk_shim.folder() / f"share-{number}"
        if (pid := os.fork()) == 0:
            for case in wanted[number::processes]:
                cases.try_out(case)
            file.write_text(json.dumps([cases.tried, cases.hit, cases.refused, cases.effects, cases.faults]))
            os._exit(0)
        shares.append((pid, file))
    for pid, file in shares:
        os.waitpid(pid, 0)
        tried, hit, refused, effects, faults = json.loads(file.read_text())
        cases.tried.update(tried)
        cases.hit.update(hit)
        cases.refused += refused
        cases.effects += effects
        cases.faults += faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="disk_calls.py", description="Hit the disk calls of a load, one by one.")
    parser.add_argument("--every", type=int, default=1, help="hit each so many-th call")
    parser.add_argument("--actions", default=",".join((*DEADLY, *FAILING)))
    parser.add_argument("--stays", type=int, default=20, help="so many faults that stay for a while")
    parser.add_argument("--twice", type=int, default=20, help="so many lives that die twice")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds until a life counts as hung")
    parser.add_argument("--bug", default=None, help="one of planted.py: it must be found")
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args()
    if not disk_shim.is_under():
        return disk_shim.under(__file__, *sys.argv[1:]).returncode
    seed = time.time_ns() % 2**32 if asked.seed is None else asked.seed
    dice, cases, began = random.Random(seed), Cases(asked.bug, asked.patience), time.monotonic()
    calls = int(0.85 * cases.calls())  # a little more or less each time: groups of commits differ
    wanted = [
        Case(action, at)
        for action in asked.actions.split(",")
        for at in range(dice.randint(1, asked.every), calls, asked.every)
    ]
    wanted += [Case(dice.choice(FAILING[:3]), dice.randint(1, calls), stays=True) for _ in range(asked.stays)]
    wanted += [Case(dice.choice(DEADLY), dice.randint(2, calls), again=1 + number) for number in range(asked.twice)]
    in_processes(cases, wanted)
    figures = {
        "seed": seed, "calls": calls, "tried": dict(cases.tried), "hit": dict(cases.hit), "refused": cases.refused,
        "effects": cases.effects, "faults": len(cases.faults), "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    print(json.dumps(figures))
    for fault in cases.faults[:20]:
        print(fault, file=sys.stderr)
    if missed := [name for name, count in cases.tried.items() if 2 * cases.hit[name] < count]:
        print(f"hardly ever hit: {missed}", file=sys.stderr)
    return 1 if cases.faults or missed else 0


if __name__ == "__main__":
    sys.exit(main())

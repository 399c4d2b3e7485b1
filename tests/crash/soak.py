"""
`make soak`: kills the owner of one journal hundreds of times under a mixed load, and has the world outside judge.

    soak.py [--kills N] [--effects N] [--images N] [--every K] [--minutes M] [--seed S] [--bug NAME]

Then come N images of power cuts (`power_loss.py`), and each Kth disk call failing (`disk_calls.py`); 0 leaves them out.

Injected: SIGKILL while it opens the file, while it recovers, at work at random moments, and at named points around
every commit (`killing.py`); sometimes it is stopped (SIGSTOP) for a while first, and sometimes a standby waits for
the file meanwhile. What must hold is in `soak_judge.py`. Exits with 1 if anything was lost, doubled, repeated or
stuck, if a life ended by itself, or if not as much was injected and checked as was asked for.

Every life is forked from this process, which opens nothing. The seed gives the same faults in the same order; where
in the work they hit is the machine's doing.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import functools
import gc
import json
import logging
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NoReturn

import structlog

from durable.errors import JournalError

sys.path.insert(0, str(Path(__file__).parent))
import disk_shim
import soak_load

HERE = Path(__file__).parent
#: Points of `killing.py`, and how often a life passes one before it dies there, at most.
POINTS = ("before-begin", "before-commit", "after-commit", "before-dispatch", "after-dispatch", "recovery")
MOST_PASSES = 120
#: Seconds in which a life must have opened the file.
OPENS_WITHIN = 30.0


CHECKED = ("lives", "runs", "acknowledged", "effects", "of these in transactions", "interrupted steps that ran again")
#: The judge's kinds of faults, for people.
FOUND_BY = {
    "lost": "lost",
    "doubled": "doubled",
    "rerun": "steps re-run after their recorded end",
    "stuck": "stuck runs",
    "wrong": "wrong otherwise",
}
ENDED = "lives that ended or hung by themselves"
FOUND = (*FOUND_BY.values(), ENDED)


class Life:
    """A forked process that works on the journal."""

    def __init__(self, folder: Path, number: int, *, before=None, after=None, **options) -> None:
        self.number, self._opened = number, False
        self._pipe, say = os.pipe()
        gc.freeze()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._pipe)
            _be(folder, number, before, after, say, options)
        os.close(say)

    def opened(self, seconds: float = OPENS_WITHIN) -> bool:
        """Whether the file is its own, or is within so many seconds."""
        if not self._opened and select.select([self._pipe], [], [], seconds)[0]:
            self._opened = os.read(self._pipe, 1) == b"o"
        return self._opened

    def send(self, which: int) -> None:
        os.kill(self.pid, which)

    def ended(self, seconds: float | None = None) -> int | None:
        """Its exit code, negative for a signal; None if it goes on for *seconds*."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, 0 if deadline is None else os.WNOHANG)
            if pid:
                os.close(self._pipe)
                return os.waitstatus_to_exitcode(status)
            if deadline is not None and time.monotonic() >= deadline:
                return None
            time.sleep(0.002)


#: Exit code of a life to which the disk refused the file: told by an error of ours, and nothing was done.
REFUSED = 3


def _be(folder: Path, number: int, before, after, say: int, options) -> NoReturn:
    """The life, in the child."""
    code, opened = 70, False

    def tell() -> None:
        nonlocal opened
        opened = True
        os.write(say, b"o")

    try:
        errors = os.open(folder / "errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(errors, 2)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        if before is not None:
            before()
        asyncio.run(soak_load.live(folder, number, opened=tell, **options))
        code = 0
    except JournalError:
        code = 70 if opened else REFUSED
        traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        if after is not None:
            after()
        os._exit(code)


def _break(point: tuple[str, int] | None, bug: str | None) -> None:
    """In a life: have it kill itself at a point, or do wrong."""
    if point:
        import killing

        killing.at(*point)
    if bug:
        import planted

        planted.plant(bug)


class Soak:
    """Lives on one journal, one after the other."""

    def __init__(self, folder: Path, seed: int, *, bug: str | None = None, **options) -> None:
        self.folder, self.dice, self.bug, self.options = folder, random.Random(seed), bug, options
        self.injected: collections.Counter[str] = collections.Counter()
        self.trouble: list[str] = []
        self._numbers = 0
        self._ledger_read = 0
        self.lines = 0
        soak_load.prepare(folder)
        (folder / "ledger").touch()

    @property
    def kills(self) -> int:
        return sum(count for what, count in self.injected.items() if what.startswith("killed"))

    def life(self, point: tuple[str, int] | None = None, **options) -> Life:
        self._numbers += 1
        before = functools.partial(_break, point, self.bug)
        return Life(self.folder, self._numbers, before=before, **self.options, **options)

    def ledger_lines(self) -> int:
        """How many lines there are by now: roughly as many effects."""
        with (self.folder / "ledger").open("rb") as file:
            file.seek(self._ledger_read)
            while block := file.read(1 << 20):
                self._ledger_read += len(block)
                self.lines += block.count(b"\n")
        return self.lines

    def kill_one(self, standby: Life | None = None) -> Life | None:
        """A life and its death; the standby that waits for what it leaves behind, if there is one."""
        dice, point = self.dice, None
        how = dice.choices(("at work", "recovering", "opening", "at a point"), (50, 15, 10, 25))[0]
        if standby is not None:
            how, life = "at work", standby
        else:
            if how == "at a point":
                point = (dice.choice(POINTS), dice.randint(1, MOST_PASSES))
            life = self.life(point=point)
        successor = None
        if how == "opening":
            time.sleep(dice.uniform(0, 0.06))
        elif life.opened():
            if how == "at work":
                if dice.random() < 0.2:
                    successor = self.life(standby=True)
                    self.injected["standby took over"] += 1
                time.sleep(dice.uniform(0.02, 1.0))
                if dice.random() < 0.15:
                    life.send(signal.SIGSTOP)
                    self.injected["stopped for a while (SIGSTOP)"] += 1
                    time.sleep(dice.uniform(0.05, 0.3))
                    if successor is not None and successor.opened(0):
                        self.trouble.append(f"life {successor.number} opened the file of a stopped owner")
                    life.send(signal.SIGCONT)
                    time.sleep(dice.uniform(0, 0.1))
            elif how == "recovering":
                time.sleep(dice.uniform(0, 0.02))
            elif point is not None:
                if (code := life.ended(3.0)) is not None:
                    self._record(life, code, f"killed {point[0]}")
                    return successor
                how = "at work"  # so few commits that it never got there
        elif point is None or point[0] == "recovery" or self._ended_early(life):
            self.trouble.append(f"life {life.number} did not open the file within {OPENS_WITHIN:.0f} s")
        with contextlib.suppress(ProcessLookupError):
            life.send(signal.SIGKILL)
        self._record(life, life.ended(), f"killed {how}" if point is None or how == "at work" else f"killed {point[0]}")
        return successor

    def _ended_early(self, life: Life) -> bool:
        """Whether it hangs: a named point may well be passed before the file is open, and kill it there."""
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            try:
                os.kill(life.pid, 0)
            except ProcessLookupError:
                return False
            if Path(f"/proc/{life.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
            time.sleep(0.01)
        return True

    def _record(self, life: Life, code: int | None, what: str) -> None:
        if code == -signal.SIGKILL:
            self.injected[what] += 1
        else:
            self.trouble.append(f"life {life.number} ended by itself, with {code}")

    def finish(self, standby: Life | None = None, patience: float = soak_load.PATIENCE) -> None:
        """The last life, which nobody disturbs."""
        seconds = 2 * patience + 120
        if standby is not None:
            standby.send(signal.SIGKILL)
            standby.ended()
        life = self.life(last=True, patience=patience)
        code = life.ended(seconds)
        if code is None:
            life.send(signal.SIGKILL)
            life.ended()
            self.trouble.append(f"the last life did not end within {seconds:.0f} s")
        elif code:
            self.trouble.append(f"the last life ended with {code}")

    def judged(self) -> tuple[dict[str, int], str]:
        """What the judge, a process of its own, found; and what it says."""
        if not (self.folder / "final").exists():
            return {}, "the last life left no account"
        done = subprocess.run(
            [sys.executable, HERE / "soak_judge.py", self.folder], capture_output=True, text=True, check=False
        )
        return json.loads(done.stdout or "{}"), done.stderr


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak.py", description="Kill the owner of a journal, and judge.")
    parser.add_argument("--kills", type=int, default=500, help="at least so many")
    parser.add_argument("--effects", type=int, default=200_000, help="at least so many checked")
    parser.add_argument("--images", type=int, default=0, help="power cuts")
    parser.add_argument("--every", type=int, default=0, help="fail each so many-th disk call")
    parser.add_argument("--minutes", type=float, default=20.0, help="at most so many")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--workers", type=int, default=40, help="callers at once")
    parser.add_argument("--patience", type=float, default=soak_load.PATIENCE, help="seconds until a run is stuck")
    parser.add_argument("--keep", choices=("yes", "no"), default="yes", help="the files of a soak that failed")
    parser.add_argument("--bug", default=None, help="one of planted.py: the judge must find it")
    return parser.parse_args(arguments)


class Report:
    """What was injected, checked and found, by all of it."""

    def __init__(self) -> None:
        self.injected: collections.Counter[str] = collections.Counter()
        self.checked: collections.Counter[str] = collections.Counter()
        self.found: collections.Counter[str] = collections.Counter(dict.fromkeys(FOUND, 0))
        self.said: list[str] = []

    def add_kills(self, soak: Soak) -> None:
        found, said = soak.judged()
        self.injected.update({"kills (SIGKILL)": soak.kills})
        self.injected.update({f"  {what}": count for what, count in sorted(soak.injected.items())})
        self.checked.update({what: found.get(what, 0) for what in CHECKED})
        self.found.update({FOUND_BY[fault]: found[fault] for fault in FOUND_BY if fault in found})
        self.found[ENDED] += len(soak.trouble)
        self.said += [*soak.trouble, *said.splitlines()]

    def add_power_cuts(self, images: int, seed: int) -> None:
        figures = self._run("power_loss.py", "--images", images, "--seed", seed)
        self.injected["power cuts (images of the file)"] += figures.get("images", 0)
        self.injected.update(
            {f"  {name}": count for name, count in sorted(figures.items()) if name.startswith("with ")}
        )
        self.checked.update({what: figures.get(what, 0) for what in ("effects", "acknowledged")})
        self.found.update({FOUND_BY[fault]: figures[fault] for fault in FOUND_BY if fault in figures})
        self.found[ENDED] += figures.get("unusable", 0)

    def add_disk_calls(self, every: int, seed: int) -> None:
        figures = self._run("disk_calls.py", "--every", every, "--seed", seed)
        hit = figures.get("hit", {})
        self.injected["disk calls hit"] += sum(hit.values())
        self.injected.update({f"  {name}": count for name, count in sorted(hit.items())})
        self.checked["effects"] += figures.get("effects", 0)
        self.found["at failing disk calls, of any kind"] += figures.get("faults", 0)

    def _run(self, program: str, *arguments: object) -> dict:
        if disk_shim.MISSING:
            self.said.append(f"{program} was left out: {disk_shim.MISSING}")
            return {}
        command = [sys.executable, HERE / program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.said += [f"{program} ended with {done.returncode}", *done.stderr.splitlines()]
        return json.loads(done.stdout or "{}")

    def show(self) -> None:
        for title, figures in (("injected", self.injected), ("checked", self.checked), ("found", self.found)):
            print(title)
            for what, count in figures.items():
                print(f"  {what:<46}{count:>9,}")


def main(arguments: list[str] | None = None) -> int:
    """Kill until enough was killed and done, finish, judge, print; the exit code."""
    asked = _parsed(arguments)
    seed = time.time_ns() % 2**32 if asked.seed is None else asked.seed
    print(
        f"seed {seed}: {asked.kills} kills and {asked.effects:,} effects or more, in {asked.minutes:g} minutes at most"
    )
    folder, began = Path(tempfile.mkdtemp(prefix="soak-")), time.monotonic()
    soak, report = Soak(folder, seed, bug=asked.bug, workers=asked.workers), Report()
    deadline = began + 60 * asked.minutes * 0.7  # the rest is for the last life, the judge and the disk
    standby, shown = None, began
    while time.monotonic() < deadline and (soak.kills < asked.kills or soak.ledger_lines() < asked.effects):
        standby = soak.kill_one(standby)
        if time.monotonic() - shown > 60:
            shown = time.monotonic()
            print(f"  {soak.kills} kills, about {soak.ledger_lines():,} effects", flush=True)
    soak.finish(standby, asked.patience)
    report.add_kills(soak)
    if asked.images:
        report.add_power_cuts(asked.images, seed)
    if asked.every:
        report.add_disk_calls(asked.every, seed)
    report.show()
    if soak.kills < asked.kills:
        report.said.append(f"only {soak.kills} kills")
    if report.checked["effects"] < asked.effects:
        report.said.append(f"only {report.checked['effects']:,} effects")
    for sentence in report.said:
        print(f"  {sentence}")
    failed = bool(report.said) or any(report.found.values())
    print(f"{'FAILED' if failed else 'passed'}, seed {seed}, {time.monotonic() - began:.0f} s")
    if failed and asked.keep == "yes":
        print(f"kept: {folder}")
        if (errors := folder / "errors").exists():
            print(errors.read_text()[-4000:])
    else:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

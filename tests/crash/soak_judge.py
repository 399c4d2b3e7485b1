"""
Judges what `soak_load.py` has left behind: `soak_judge.py FOLDER`. Knows the ledger, how each run stood at the end,
and the application's own table; imports nothing of the engine, and looks at none of its tables.

    lost      an acknowledged start, signal, cancel or success of which nothing is there; a row that is missing
    doubled   a row, child, callback or signal that is there twice
    rerun     a body that ran after somebody knew its outcome, or twice in one life, or in two lives at once
    stuck     a run that has not ended
    wrong     anything else: an outcome that changed or that nobody made, an early timer, an unexpected failure

Exits with 1 if there is any of these.
"""

from __future__ import annotations

import collections
import contextlib
import json
import sqlite3
import sys
from pathlib import Path

FAULTS = ("lost", "doubled", "rerun", "stuck", "wrong")
#: By kind: outcomes in its result, children, marks of its rows, signals.
KINDS = {
    "chain": (24, 0, ["3", "7", "11", "15", "19", "23"], []),
    "rows": (1, 0, [str(number) for number in range(10)], []),
    "family": (9, 8, ["resumed"], []),
    "group": (17, 0, ["won 0"], []),
    "signalled": (3, 0, [], [0, 1, 2]),
    "timed": (2, 0, ["end"], []),
    "doomed": (0, None, None, []),
}
MEMBERS = 4
#: What a timer of 0.03 s may be early: clocks are stepped by a little all the time.
TIMER = 0.03 - 0.001


class Judge:
    """What was found: how much was looked at, and sentences by kind of fault."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {fault: [] for fault in FAULTS}
        self.lives = 0
        self.effects = 0
        self.rows = 0
        self.interrupted = 0
        self.acks: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.signals: dict[str, set[int]] = collections.defaultdict(set)
        self.cancels: set[str] = set()
        self.ends: dict[str, tuple[str, object]] = {}
        self.final: dict[str, tuple[str, str, object]] = {}
        #: By run and place: tokens made, when the last one was, and the one that somebody knows.
        self.made: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
        self.at: dict[tuple[str, str], float] = {}
        self.known: dict[tuple[str, str], str] = {}
        self.places: dict[str, set[str]] = collections.defaultdict(set)
        self.named: dict[str, set[str]] = collections.defaultdict(set)
        self._life: object = None
        self._attempts: set[tuple[str, str, int]] = set()

    def says(self, fault: str, sentence: str) -> None:
        self.found[fault].append(sentence)

    def report(self) -> dict[str, object]:
        return {
            "lives": self.lives,
            "runs": len(self.final),
            "acknowledged": len(self.acks),
            "effects": self.effects + self.rows,
            "of these in transactions": self.rows,
            "interrupted steps that ran again": self.interrupted,
            **{fault: len(found) for fault, found in self.found.items()},
        }

    @property
    def is_clean(self) -> bool:
        return not any(self.found.values())

    # --- the ledger, in its order ------------------------------------------------------------------

    def read(self, number: int, what: str, *rest) -> None:
        match what, rest:
            case "boot", (life,):
                self.lives += 1
                self._life, self._attempts = life, set()
            case "ack", (run, kind):
                if kind.startswith("key "):  # two callers, one key: one run
                    if self.kinds.setdefault(kind, run) != run:
                        self.says("doubled", f"line {number}: {kind} stands for two runs")
                else:
                    self.acks[run] = kind
            case "signal", (run, value):
                self.signals[run].add(value)
            case "cancel", (run,):
                self.cancels.add(run)
            case "effect", _:
                self._effect(number, *rest)
            case "end", (run, status, result):
                if self.ends.setdefault(run, (status, result)) != (status, result):
                    self.says("wrong", f"line {number}: {run} ended in two ways")
                for outcome in (result or {}).get("tokens", ()):
                    self._knows(number, *outcome)

    def _effect(self, number, life, run, place, attempt, token, seen, name, at) -> None:
        self.effects += 1
        if life != self._life:
            self.says("rerun", f"line {number}: life {life} works while {self._life} owns the file")
        for outcome in seen:
            self._knows(number, *outcome)
            before = self.at.get((outcome[0], outcome[1]), 0.0)
            if run.startswith("timed") and at - before < TIMER and attempt == 1:
                self.says("wrong", f"line {number}: the timer of {run} fired {TIMER - (at - before):.3f} s early")
        if (run, place) in self.known:
            self.says("rerun", f"line {number}: {place} of {run} ran again after its outcome was known")
        elif run in self.ends and self.ends[run][0] == "succeeded":
            self.says("rerun", f"line {number}: {place} of {run} ran after its end")
        if (run, place, attempt) in self._attempts:
            self.says("rerun", f"line {number}: attempt {attempt} of {place} of {run} ran twice in one life")
        self._attempts.add((run, place, attempt))
        if self.made[run, place] and not run.startswith("timed"):
            self.interrupted += 1
        self.made[run, place].append(token)
        self.places[run].add(place)
        self.at[run, place] = at
        if name:
            self.named[name].add(run)

    def _knows(self, number: int, run: str, place: str, token: str) -> None:
        if self.known.setdefault((run, place), token) != token:
            self.says("wrong", f"line {number}: the outcome of {place} of {run} changed")
        elif token not in self.made[run, place]:
            self.says("wrong", f"line {number}: nobody made the outcome of {place} of {run}")
        elif token != self.made[run, place][-1]:
            self.says("rerun", f"line {number}: the outcome of {place} of {run} is not that of its last attempt")

    # --- how it stands at the end --------------------------------------------------------------------

    def settle(self, rows: collections.Counter[tuple[str, str]], tokens: dict[tuple[str, str], str]) -> None:
        """Everything acknowledged is there, and once."""
        self.rows = sum(rows.values())
        self._final_runs()
        self._named_runs()
        for (run, mark), count in rows.items():
            if count > 1:
                self.says("doubled", f"row {mark!r} of {run} is there {count} times")
            if run not in self.final:
                self.says("wrong", f"row {mark!r} is of {run}, which nobody knows")
        for run, (workflow, status, result) in self.final.items():
            if workflow not in KINDS or status != "succeeded":
                continue
            for mark in KINDS[workflow][2]:
                if (run, mark) not in rows:
                    self.says("lost", f"row {mark!r} of {run} is missing")
            made = {token for _, _, token in result["tokens"]}
            for mark in KINDS[workflow][2]:
                if tokens.get((run, mark)) not in made | {None}:
                    self.says("rerun", f"row {mark!r} of {run} knows an outcome that is not in its result")

    def _final_runs(self) -> None:
        for run, kind in self.acks.items():
            if self.final.get(run, ("",))[0] != kind:
                self.says("lost", f"{kind} {run} was acknowledged and is gone")
        for run, (workflow, status, result) in self.final.items():
            if status not in ("succeeded", "failed", "cancelled"):
                self.says("stuck", f"{run} is {status}: {result}")
                continue
            if run in self.ends:
                told, value = self.ends[run]
                if told != status or (status == "succeeded" and value != result):
                    self.says("lost", f"{run} {told}, its caller was told, and now it is {status}")
            if run in self.cancels and status != "cancelled":
                self.says("lost", f"the cancel of {run} was acknowledged, and it {status}")
            elif status != "succeeded" and not run.startswith("doomed") and run not in self.of_the_doomed():
                self.says("wrong", f"{run} {status}: {result}")
            if workflow in KINDS and status == "succeeded":
                self._result(run, workflow, result)

    def _result(self, run: str, workflow: str, result) -> None:
        outcomes, children, _, signals = KINDS[workflow]
        for one, place, token in result["tokens"]:
            if token not in self.made[one, place]:
                self.says("wrong", f"nobody made the outcome of {place} in the result of {run}")
            elif token != self.made[one, place][-1]:
                self.says("rerun", f"the outcome of {place} in the result of {run} is not that of its last attempt")
        if len({tuple(outcome) for outcome in result["tokens"]}) != outcomes:
            self.says("wrong", f"{run} has {len(result['tokens'])} outcomes, expected {outcomes}")
        for number in range(children or 0):
            if not self.named[f"{run}/{number}"]:
                self.says("lost", f"child {number} of {run} never ran")
        if result["signals"] != signals:
            twice = len(result["signals"]) > len(set(result["signals"]))
            self.says("doubled" if twice else "lost", f"{run} got the signals {result['signals']}")

    def _named_runs(self) -> None:
        for name, found in self.named.items():
            if len(found) > 1:
                self.says("doubled", f"{name} was launched {len(found)} times")
        for run, kind in self.acks.items():
            if kind == "batch":
                for name in (*range(MEMBERS), "callback"):
                    if not self.named[f"{run}/{name}"]:
                        self.says("lost", f"{name} of {run} never ran")

    def of_the_doomed(self) -> set[str]:
        """Children that go down with a cancelled parent."""
        if not hasattr(self, "_doomed"):
            self._doomed = {run for name, found in self.named.items() if name.startswith("doomed") for run in found}
            # One that was cancelled before it began is named nowhere.
            self._doomed |= {run for run, (workflow, status, _) in self.final.items()
                             if workflow == "child" and status == "cancelled" and run not in self.places}  # fmt: skip
        return self._doomed


def judge(folder: Path) -> Judge:
    """All that can be said about what is in *folder*."""
    found = Judge()
    with (folder / "ledger").open() as lines:
        for number, line in enumerate(lines, 1):
            found.read(number, *json.loads(line))
    with (folder / "final").open() as lines:
        for line in lines:
            run, *rest = json.loads(line)
            found.final[run] = tuple(rest)
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'app.db'}?mode=ro", uri=True)) as app:
        rows = app.execute("SELECT run, mark, token FROM app").fetchall()
    found.settle(collections.Counter((run, mark) for run, mark, _ in rows), {(run, mark): t for run, mark, t in rows})
    return found


def main(folder: str) -> int:
    found = judge(Path(folder))
    print(json.dumps(found.report()))
    for fault, sentences in found.found.items():
        for sentence in sentences[:5]:
            print(f"{fault}: {sentence}", file=sys.stderr)
    return 0 if found.is_clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""
Cuts the power: what a disk may hold afterwards is made out of a record of all writes and syncs, and opened.

    power_loss.py [--images N] [--runs N] [--durability full|process] [--seed S]

One life works with `disk_shim.c` between itself and its disk. Then, for moments drawn from its record: what a file
held at its last sync is there; of what was written later, nothing is, everything, some of it, or some of it torn at
a sector. The ledger is as it was at that moment, because the world outside does not lose its memory with our power.
A fresh engine opens the image and brings everything to its end; the judge compares.

What must hold: with ``durability="full"`` nothing that was acknowledged is lost, and nothing runs again whose outcome
was known. With ``"process"`` the last commits may be lost together, and the file is consistent: every image opens,
and everything in it ends. A kill shows none of this, for the kernel keeps what was written.

Not modelled: the names of files (SQLite syncs the directory). Prints figures as JSON; exits with 1 if anything was
found.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import struct
import sys
import time
from pathlib import Path

from attrs import frozen

sys.path.insert(0, str(Path(__file__).parent))
import disk_shim
import soak_judge
import soak_load
from soak import Life

SECTOR = 512
MODES = ("nothing", "all", "some", "torn parts")
HANGS = 30.0
PROCESSES = 2


@frozen
class Call:
    """A disk call: W(rite), S(ync), T(runcate), U(nlink), or A(ppend) to the ledger."""

    what: str
    file: str
    offset: int
    body: bytes


def read_trace(path: Path) -> list[Call]:
    """The calls that the shim recorded, in their order."""
    data, at, calls = path.read_bytes(), 0, []
    while at + 15 <= len(data):
        what = chr(data[at])
        named, offset, length = struct.unpack_from("<HqI", data, at + 1)
        at += 15
        file = os.path.basename(data[at : at + named].decode())
        at += named
        calls.append(Call(what, file, offset, data[at : at + length]))
        at += length
    return calls


def image(before: dict[str, bytes], calls: list[Call], mode: str, dice: random.Random) -> dict[str, bytearray]:
    """The files that a power cut after *calls* may leave."""
    synced = {file: bytearray(body) for file, body in before.items()}
    later: dict[str, list[Call]] = collections.defaultdict(list)
    for call in calls:
        match call.what:
            case "S":
                for each in later.pop(call.file, ()):
                    _apply(synced.setdefault(call.file, bytearray()), each)
            case "U":
                synced.pop(call.file, None)
                later.pop(call.file, None)
            case "W" | "T":
                synced.setdefault(call.file, bytearray())
                later[call.file].append(call)
    for file, pending in later.items():
        for call in pending:
            if mode == "nothing" or (mode in ("some", "torn parts") and dice.random() < 0.5):
                continue
            _apply(synced[file], _torn(call, dice) if mode == "torn parts" and dice.random() < 0.5 else call)
    return synced


def _torn(call: Call, dice: random.Random) -> Call:
    """Some sectors at the beginning or the end of a write."""
    sectors = (len(call.body) + SECTOR - 1) // SECTOR
    if call.what != "W" or sectors < 2:
        return call
    kept = SECTOR * dice.randrange(1, sectors)
    if dice.random() < 0.5:
        return Call("W", call.file, call.offset, call.body[:kept])
    return Call("W", call.file, call.offset + kept, call.body[kept:])


def _apply(file: bytearray, call: Call) -> None:
    end = call.offset + len(call.body)
    if call.what == "T" and end < len(file):
        del file[end:]
    file.extend(bytes(max(0, end - len(file))))
    file[call.offset : end] = call.body


class Cuts:
    """One recorded life, and the images made of it."""

    def __init__(self, durability: str, runs: int) -> None:
        self.figures: collections.Counter[str] = collections.Counter()
        self.said: list[str] = []
        folder = disk_shim.folder() / "recorded"
        folder.mkdir()
        soak_load.prepare(folder)
        self._before = {"app.db": (folder / "app.db").read_bytes()}
        trace = disk_shim.folder().parent / "trace"
        life = Life(
            folder, 1, runs=runs, workers=8, durability=durability, before=lambda: disk_shim.Shim().trace(trace)
        )
        assert life.ended(HANGS) == 0, (folder / "errors").read_text()
        self.calls = read_trace(trace)

    def cut(self, number: int, seed: int) -> None:
        """One image: made, opened, judged."""
        dice = random.Random(f"{seed}-{number}")
        until, mode = dice.randint(1, len(self.calls)), MODES[number % len(MODES)]
        folder = disk_shim.folder() / f"image-{number}"
        folder.mkdir()
        calls = self.calls[:until]
        files = image(self._before, [call for call in calls if call.what != "A"], mode, dice)
        for name in ("app.db", "app.db-wal"):
            if name in files:
                (folder / name).write_bytes(files[name])
        (folder / "ledger").write_bytes(b"".join(call.body for call in calls if call.file == "ledger"))
        self.figures[f"with {mode} of what was not synced"] += 1
        life = Life(folder, 2, last=True, patience=8.0)
        if (code := life.ended(HANGS)) is None:
            life.send(signal.SIGKILL)
            life.ended()
        if code != 0:
            self.figures["unusable"] += 1
            self.said.append(f"image {number} ({mode}, call {until}): the engine ended with {code}")
            self.said.append((folder / "errors").read_text()[-1500:])
        else:
            judged = soak_judge.judge(folder)
            self.figures["effects"] += judged.effects + judged.rows
            self.figures["acknowledged"] += len(judged.acks)
            for fault, sentences in judged.found.items():
                self.figures[fault] += len(sentences)
                self.said += [f"image {number} ({mode}, call {until}): {fault}: {each}" for each in sentences[:2]]
        shutil.rmtree(folder)

    def in_processes(self, images: int, seed: int) -> None:
        """All images, some at once: in processes, because whoever forks lives may have no threads."""
        shares = []
        for share in range(PROCESSES):
            file = disk_shim.folder() / f"share-{share}"
            if (pid := os.fork()) == 0:
                for number in range(share, images, PROCESSES):
                    self.cut(number, seed)
                file.write_text(json.dumps([self.figures, self.said]))
                os._exit(0)
            shares.append((pid, file))
        for pid, file in shares:
            os.waitpid(pid, 0)
            figures, said = json.loads(file.read_text())
            self.figures.update(figures)
            self.said += said


def main() -> int:
    parser = argparse.ArgumentParser(prog="power_loss.py", description="Open what power cuts leave.")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--runs", type=int, default=24, help="of the life whose power is cut")
    parser.add_argument("--durability", choices=("full", "process"), default="full")
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args()
    if not disk_shim.is_under():
        return disk_shim.under(__file__, *sys.argv[1:]).returncode
    seed, began = time.time_ns() % 2**32 if asked.seed is None else asked.seed, time.monotonic()
    cuts = Cuts(asked.durability, asked.runs)
    cuts.in_processes(asked.images, seed)
    kinds = collections.Counter(call.what for call in cuts.calls)
    found = {fault: cuts.figures.get(fault, 0) for fault in (*soak_judge.FAULTS, "unusable")}
    figures = {
        "seed": seed, "images": asked.images, "writes": kinds["W"], "syncs": kinds["S"],
        **{name: count for name, count in cuts.figures.items() if name not in found}, **found,
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    print(json.dumps(figures))
    for line in cuts.said[:20]:
        print(line, file=sys.stderr)
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

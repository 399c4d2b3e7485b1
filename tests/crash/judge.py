"""
The judge: reads the ledger and the application's table, and says what went wrong.

Independent of the engine: it imports nothing of it, and does not look at its tables.
"""

import collections
import contextlib
import json
import sqlite3
from pathlib import Path

MARKS = {
    "line": ["middle", "end"],
    "family": ["resumed", "end"],
    "loop": ["won 0"],
    "doomed": ["cleaned up"],
    "chain": ["end"],
}


def judge(database, ledger, members=4, signals=3):
    """What is wrong, in sentences; an empty list if nothing is. For a victim that exited with 0."""
    lines = [json.loads(line) for line in Path(ledger).read_text().splitlines()]
    return [
        *_effects(lines), *_ends(lines), *_results(lines, members, signals), *_follow_ups(lines), *_limits(lines),
        *_rows(lines, database),
    ]  # fmt: skip


def _effects(lines):
    """No body runs after its outcome was seen, nor twice in one life; nobody sees two outcomes."""
    seen, done, this_life = {}, collections.defaultdict(set), set()
    for number, (what, *rest) in enumerate(lines, 1):
        if what == "boot":
            this_life = set()
        elif what == "effect":
            run, place, attempt, token = rest
            if (run, place) in seen:
                yield f"line {number}: {place} of {run} ran again after its outcome was seen"
            if (run, place, attempt) in this_life:
                yield f"line {number}: attempt {attempt} of {place} of {run} ran twice in one life"
            this_life.add((run, place, attempt))
            done[run, place].add(token)
        elif what == "seen":
            run, place, token = rest
            if seen.setdefault((run, place), token) != token:
                yield f"line {number}: the outcome of {place} of {run} changed"
            if token not in done[run, place]:
                yield f"line {number}: nobody made the outcome of {place} of {run}"
        elif what == "end":
            run, status, result = rest
            for place, token in (result or {}).get("tokens", ()):
                if seen.setdefault((run, place), token) != token or token not in done[run, place]:
                    yield f"line {number}: the result of {run} holds an outcome of {place} that is not its last"
            for other, place in list(done):
                # Cancelling asks children to end, and does not wait for them: one may be starting that very moment.
                if other == run or (status != "cancelled" and other.startswith(f"{run}/")):
                    seen.setdefault((other, place), "")


def _ends(lines):
    """What was acknowledged comes to its end, and to one only."""
    ends = collections.defaultdict(list)
    for what, *rest in lines:
        if what == "end":
            ends[rest[0]].append(rest[1:])
    for what, *rest in lines:
        if what == "ack" and rest[0] not in ends:
            yield f"{rest[0]} was acknowledged and never ended"
        if what == "cancel" and any(status != "cancelled" for status, _ in ends[rest[0]]):
            yield f"{rest[0]} was cancelled and succeeded"
    for run, found in ends.items():
        if any(end != found[0] for end in found):
            yield f"{run} ended in two ways"


def _results(lines, members, signals):
    """Results are what was asked for; children exist once."""
    kinds = {rest[0]: rest[1] for what, *rest in lines if what == "ack"}
    children = collections.defaultdict(lambda: collections.defaultdict(set))
    for what, *rest in lines:
        if what == "effect" and rest[1] == "job":
            parent, number = rest[3].rsplit("/", 1)
            children[parent][number].add(rest[0])
    for parent, numbers in children.items():
        for number, found in numbers.items():
            if len(found) > 1:
                yield f"child {number} of {parent} exists {len(found)} times"
    for what, *rest in lines:
        if what != "end" or rest[1] != "succeeded":
            continue
        run, _, result = rest
        if kinds[run] == "line" and result["signals"] != list(range(signals)):
            yield f"{run} got the signals {result['signals']}"
        if kinds[run] == "family":
            if result["numbers"] != list(range(2 * members)):
                yield f"{run} got the results {result['numbers']} of its children"
            if len(children[run]) != 2 * members:
                yield f"{run} has {len(children[run])} children"
        if kinds[run] == "chain" and (result["numbers"], len(children[run])) != (list(range(members + 2)), members + 2):
            yield f"{run} has {len(children[run])} children, with the results {result['numbers']}"


def _follow_ups(lines):
    """The follow-up and the hook of a chain that has ended were launched once each, and seen by its client."""
    launched, seen = collections.defaultdict(set), set()
    for what, *rest in lines:
        if what == "effect" and rest[1] == "follow":
            launched[rest[3]].add(rest[0])
        elif what == "seen" and rest[1] == "follow":
            seen.add(rest[2])
    kinds = {rest[0]: rest[1] for what, *rest in lines if what == "ack"}
    ended = {rest[0] for what, *rest in lines if what == "end"}
    for run in (run for run, kind in kinds.items() if kind == "chain"):
        for name in (f"then of {run}", f"hook of {run}"):
            if len(launched[name]) > 1:
                yield f"{name} was launched {len(launched[name])} times"
            if run in ended and name not in seen:
                yield f"{name} was not there with the end"


def _limits(lines, narrow=2):
    """No more are inside of a limit than it lets in: two in all, of one run at a time."""
    inside = []
    for number, (what, *rest) in enumerate(lines, 1):
        if what == "boot":
            inside = []
        elif what == "enter":
            inside.append(rest[0])
            if len(inside) > narrow or len(set(inside)) > 1:
                yield f"line {number}: {inside} are inside together"
        elif what == "leave" and rest[0] in inside:
            inside.remove(rest[0])
        elif what == "leave":
            yield f"line {number}: {rest[0]} leaves, and was not inside"


def _rows(lines, database):
    """Each row of a transaction is there once."""
    with contextlib.closing(sqlite3.connect(database)) as app:
        rows = collections.Counter(app.execute("SELECT run, mark FROM app").fetchall())
    kinds = {rest[0]: rest[1] for what, *rest in lines if what == "ack"}
    begun = {rest[0] for what, *rest in lines if what == "effect"}
    for run, kind in kinds.items():
        marks = [] if kind == "doomed" and (run, "cleaned up") not in rows else MARKS[kind]
        if kind == "doomed" and not marks and any(child.startswith(f"{run}/") for child in begun):
            yield f"{run} did not clean up"
        for mark in marks:
            if rows.pop((run, mark), 0) != 1:
                yield f"row {mark!r} of {run} is not there once"
    for (run, mark), count in rows.items():
        yield f"row {mark!r} of {run} is there {count} times"

"""
Ids of runs: which ones callers may choose, and which ones the engine makes of them.

The run `order-7` has the child `order-7~.3.1` at position 3.1, which is `order-7~.3.1-2` where the run is in its second
attempt, and continues as `order-7~2`. Chosen ids lack the signs that set these apart, so nobody can take one
beforehand; and each sign stands in the path of a URL, in a shell and in the name of a file as it is.
"""

from __future__ import annotations

from typing import Final

#: What ids that the engine makes have in them, and chosen ones have not: ":" is for members of batches and ticks of
#: schedules, "/" is what children had.
RESERVED_SIGNS: Final = "/~:"
#: Between the id of a run and the position of its child.
CHILD_SIGN: Final = "~."
#: The same, before ids were fit for URLs. Runs that have started such children keep to it, since others that they are
#: to have may be in the file already, in the line of a `for_each`.
OLD_CHILD_SIGN: Final = "/"


def child(run_id: str, position: str, attempt: int, *, old: bool = False) -> str:
    """The id of what attempt *attempt* of a run starts at *position*: derived, so it exists exactly once."""
    if old:
        return f"{run_id}{OLD_CHILD_SIGN}{position}" + (f"@{attempt}" if attempt > 1 else "")
    return f"{run_id}{CHILD_SIGN}{position}" + (f"-{attempt}" if attempt > 1 else "")


def below(run_id: str, parent: str) -> str | None:
    """What *run_id* has behind the id of *parent*, if it was made of it for a child or a descendant."""
    for sign in (CHILD_SIGN, OLD_CHILD_SIGN):
        if run_id.startswith(f"{parent}{sign}"):
            return run_id[len(parent) + len(sign) :]
    return None


def is_old_child(run_id: str, parent: str) -> bool:
    """Whether *run_id* is one of the ids that children of *parent* had before."""
    return run_id.startswith(f"{parent}{OLD_CHILD_SIGN}")


def parent(run_id: str) -> str:
    """The id of the run that has started the one called *run_id*; empty if nobody has, by its id."""
    return run_id[: max(run_id.rfind(CHILD_SIGN), run_id.rfind(OLD_CHILD_SIGN), 0)]


def predecessor(run_id: str) -> str:
    """The id that the first of those had which *run_id* continues; empty if it continues none, by its id."""
    base, _, count = run_id.rpartition("~")
    return base if count.isdecimal() else ""


def successor(run_id: str) -> str:
    """The id of the run that continues *run_id*: r, r~2, r~3, ..."""
    first = predecessor(run_id)
    return f"{first}~{int(run_id.removeprefix(f'{first}~')) + 1}" if first else f"{run_id}~2"

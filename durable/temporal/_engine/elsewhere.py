"""
What an embedded engine has, and a server does not: each is refused where it is asked for, with what to use instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

from durable.errors import UsageError

_TOOLS: Final = "Temporal has tools of its own for that"
_QUEUES: Final = "a queue is a task queue there: `temporal task-queue describe`, and stop its workers to pause it"
#: By the names of methods: of engines, and of runs.
OF_ENGINES: Final[Mapping[str, str]] = {
    "queue": _QUEUES,
    "queues": _QUEUES,
    "transaction": "write a function with @transaction, and give it to transact",
    "prune": f"the namespace's retention decides how long runs are kept: {_TOOLS}",
    "delete": f"`temporal workflow delete`: {_TOOLS}",
    "backup": f"the server's database is what is backed up: {_TOOLS}",
    "restore": f"the server's database is what is backed up: {_TOOLS}",
    "stats": f"`temporal workflow count`, and the metrics of the SDK: {_TOOLS}",
    "counts": f"`temporal workflow count`: {_TOOLS}",
    "health": f"`temporal operator cluster health`: {_TOOLS}",
    "read": "there is no file: `runs`, `info` and `export` tell what there is",
    "dry_run": "try it with an embedded engine: Engine.dry_run",
}
OF_RUNS: Final[Mapping[str, str]] = {
    "retry_hooks": "what goes wrong in a hook there is in the log of the worker",
    "descendants": "`children` of each of its `children`",
    "reschedule": "start it anew with another delay",
}


def refuse(name: str, known: Mapping[str, str], kind: str) -> NoReturn:
    """
    Refuse an attribute called *name*.

    Raises:
        UsageError: An embedded engine has it: what to use instead.
        AttributeError: Nobody has.
    """
    if name in known:
        msg = f"{name} is not known on Temporal: {known[name]}"
        raise UsageError(msg)
    msg = f"{kind!r} object has no attribute {name!r}"
    raise AttributeError(msg)

"""
Points at which the victim kills itself: what they hook into is named in one place, here.
"""

import os
import signal

from durable._shell.commits import commits
from durable._shell.storage import connections, database, memory
from durable._shell.turns import driver


def at(point, count):
    """SIGKILL the *count*th time that the program comes to *point*."""
    left = [count]

    def die():
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    POINTS[point](die)


def _wrap(owners, name, *, before=None, after=None):
    real = getattr(owners[0], name)

    def wrapped(*args, **kwargs):
        if before is not None:
            before()
        result = real(*args, **kwargs)
        if after is not None:
            after()
        return result

    for owner in owners:
        setattr(owner, name, wrapped)


def _child_ended(die):
    """Committed: a run ended on which another waits; nothing of it was acted upon."""
    real = commits.Commits._succeeded

    async def succeeded(self, group):
        if any("~." in ended.run_id for ended in group.effects.ended):
            die()
        await real(self, group)

    commits.Commits._succeeded = succeeded


_EVERYWHERE = [connections, database, memory]

POINTS = {
    "before-begin": lambda die: _wrap(_EVERYWHERE, "begin", before=die),
    "before-commit": lambda die: _wrap(_EVERYWHERE, "commit", before=die),
    "after-commit": lambda die: _wrap(_EVERYWHERE, "commit", after=die),
    "before-dispatch": lambda die: [_wrap([commits.Commits], each, before=die) for each in ("_tell_early", "_answer")],
    "after-dispatch": lambda die: _wrap([commits], "_tell", after=die),
    "recovery": lambda die: _wrap([driver], "load_run", before=die),
    "child-ended": _child_ended,
}

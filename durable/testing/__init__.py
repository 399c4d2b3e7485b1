"""
Tools for tests of your own workflows.

`VirtualClock` and `AutojumpLoop` let time jump; with pytest, the fixtures ``durable_engine`` and ``durable_clock``
are there by themselves (see `plugin`). `replaced` puts a type-checked fake in a step's place, `run_step` runs one
step alone with a context, `parametrize_histories` replays exported journals, `assert_same_journal` and
`assert_commands` compare histories and show a diff of the journal. `strategies` writes random workflows (it needs
Hypothesis), and `contract` has the tests that every storage must pass (it needs pytest): import these two by name.
"""

# Loaded at the first use of a name: pytest loads the plugin beside this, in every project where we are installed.
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from durable.testing.clock import VirtualClock
    from durable.testing.journals import assert_commands, assert_same_journal, journal_lines, parametrize_histories
    from durable.testing.loop import AutojumpLoop
    from durable.testing.stand_ins import Call, StepRun, replaced, run_step

__all__ = [
    "AutojumpLoop",
    "Call",
    "StepRun",
    "VirtualClock",
    "assert_commands",
    "assert_same_journal",
    "journal_lines",
    "parametrize_histories",
    "replaced",
    "run_step",
]

#: Name -> the module that has it.
_HOMES = {
    "AutojumpLoop": "loop",
    "Call": "stand_ins",
    "StepRun": "stand_ins",
    "VirtualClock": "clock",
    "assert_commands": "journals",
    "assert_same_journal": "journals",
    "journal_lines": "journals",
    "parametrize_histories": "journals",
    "replaced": "stand_ins",
    "run_step": "stand_ins",
}


def __getattr__(name: str) -> _Any:
    """What one of the modules has under *name*."""
    if name not in _HOMES:
        msg = f"module 'durable.testing' has no attribute {name!r}"
        raise AttributeError(msg)
    found = getattr(_import_module(f"durable.testing.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted({*globals(), *__all__})

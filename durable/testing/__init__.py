"""
Tools for tests of your own workflows.

`VirtualClock` and `AutojumpLoop` let time jump; with pytest, the fixtures ``durable_engine`` and ``durable_clock``
are there by themselves (see `plugin`). `every_crash` loses the process at every commit of a workflow, `every_glitch`
strikes it at every line, and both see that what must hold does (see `crashes`). `replaced` puts a type-checked fake in
a step's place, `run_step` runs one step alone with a context, `parametrize_histories` replays exported journals,
`assert_same_journal` and `assert_commands` compare histories and show a diff of the journal. `strategies` writes
random workflows (it needs Hypothesis), and `contract` holds the tests that every storage must pass (it needs pytest):
these two are imported by name.
"""

# Loaded at the first use of a name: pytest loads the plugin beside this, in every project where we are installed.
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from durable.testing._crash.faults import KINDS, Fault, GlitchError
    from durable.testing._crash.invariants import CONSISTENT, STRICT, Effect, Ledger, Outcome
    from durable.testing.clock import VirtualClock
    from durable.testing.crashes import Survived, every_crash, every_glitch, parametrize_faults
    from durable.testing.journals import assert_commands, assert_same_journal, journal_lines, parametrize_histories
    from durable.testing.loop import AutojumpLoop
    from durable.testing.scenario import Scenario
    from durable.testing.stand_ins import Call, StepRun, replaced, run_step

__all__ = [
    "CONSISTENT",
    "KINDS",
    "STRICT",
    "AutojumpLoop",
    "Call",
    "Effect",
    "Fault",
    "GlitchError",
    "Ledger",
    "Outcome",
    "Scenario",
    "StepRun",
    "Survived",
    "VirtualClock",
    "assert_commands",
    "assert_same_journal",
    "every_crash",
    "every_glitch",
    "journal_lines",
    "parametrize_faults",
    "parametrize_histories",
    "replaced",
    "run_step",
]

#: Name -> the module that has it.
_HOMES = {
    "CONSISTENT": "_crash.invariants",
    "KINDS": "_crash.faults",
    "STRICT": "_crash.invariants",
    "AutojumpLoop": "loop",
    "Call": "stand_ins",
    "Effect": "_crash.invariants",
    "Fault": "_crash.faults",
    "GlitchError": "_crash.faults",
    "Ledger": "_crash.invariants",
    "Outcome": "_crash.invariants",
    "Scenario": "scenario",
    "StepRun": "stand_ins",
    "Survived": "crashes",
    "VirtualClock": "clock",
    "assert_commands": "journals",
    "assert_same_journal": "journals",
    "every_crash": "crashes",
    "every_glitch": "crashes",
    "journal_lines": "journals",
    "parametrize_faults": "crashes",
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

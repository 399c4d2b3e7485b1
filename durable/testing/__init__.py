"""
Tools for tests of your own workflows.

`replaced` puts a type-checked fake in a step's place, `run_step` runs one step alone with a context,
`parametrize_histories` replays exported journals, `assert_same_journal` and `assert_commands` compare histories and
show a diff of the journal. `strategies` writes random workflows (it needs Hypothesis), and `contract` has the tests
that every storage must pass (it needs pytest): import these two by name.
"""

from durable.testing.journals import assert_commands, assert_same_journal, journal_lines, parametrize_histories
from durable.testing.stand_ins import Call, StepRun, replaced, run_step

__all__ = [
    "Call",
    "StepRun",
    "assert_commands",
    "assert_same_journal",
    "journal_lines",
    "parametrize_histories",
    "replaced",
    "run_step",
]

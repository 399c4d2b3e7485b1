"""
`durable.what_if`: a recorded run resumes in memory, from any position, with other outcomes.

The copy is forked, imported into the engine of a dry run, and resumed there: what it does is what the run
would do. Steps are stand-ins, time jumps, nothing is executed and no file is touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec, Payload
from durable._core.policies.caps import DEFAULT_CAPS, Caps
from durable._core.recorded.copies import Absent, Copy, command_at, copy_of, roots, status_of
from durable._core.recorded.export_format import RunHistory
from durable._core.statuses import ENDS
from durable._debug.replay import AnyHistory, AnyWorkflow, as_definitions, recorded_run
from durable._shell.attempts.stand_ins import StandFor, StandIns, result_types
from durable._shell.engine.dry_run import DryRun, SignalsToSend, rehearsing
from durable._shell.engine.engine import Engine
from durable._shell.handles.journal import backend_of
from durable._shell.reports.exporting import read_histories
from durable._shell.storage.memory import MEMORY
from durable.errors import DryRunError, UsageError


async def what_if(
    history: AnyHistory | Sequence[RunHistory],
    workflow: AnyWorkflow,
    *,
    at: str | int | None = None,
    replace: Mapping[str | int, Any] | None = None,
    stand_ins: Mapping[StandFor, Callable[..., Any]] | None = None,
    signals: SignalsToSend | None = None,
    codec: Codec | None = None,
    caps: Caps = DEFAULT_CAPS,
) -> DryRun[Any]:
    """
    Resume a recorded run from a position, with other outcomes: in memory, with stand-ins for its steps.

    Nothing is executed but workflow code and stand-ins, and no file is touched. Time begins at the last event
    of the recorded run, and jumps from deadline to deadline. Outcomes of children that had ended are part of
    the run's history. A child that had not ended continues as well, from where it stands, so its own
    `RunHistory` is needed: give a list, or an export made with ``--tree``.

    Args:
        history: As for `replay`; or a list of `RunHistory`, of which the first is the run, and the others
            are those that it waits for.
        workflow: The workflow; or all that it leads to (a list, a module): child workflows and jobs, too.
        at: The position of the command that is asked for afresh; what was recorded before it is copied. By
            default the first of *replace*. Without both, the run continues from where it stands: one that waits
            or is blocked as a resume would have it, one that failed as a retry would.
        replace: Values by position, instead of the recorded outcomes of steps, transactions and children.
        stand_ins: As for `Engine.dry_run`.
        signals: A list of payloads by `Signal`, or by the name of one, as for `Engine.dry_run`.
        codec: Reads and writes values, where the journal was written with ``codec=`` hooks.
        caps: Sizes beyond which values and histories are refused.

    Returns:
        How it ended, or what it waits for. Its history begins with what was copied.

    Raises:
        UsageError: A position was never asked for, or its outcome cannot be given; or the run has ended, and
            no position is given.
        DryRunError: A child that had not ended is missing, or a stand-in fits nothing.
        EncodeError: A value cannot be recorded.

    Example:
        >>> @step
        ... async def price(item: str) -> int:
        ...     return len(item)
        >>> @workflow
        ... async def order(item: str) -> int:
        ...     return await price(item) + 1
        >>> async with Engine(":memory:", [order]) as engine:
        ...     run = await engine.start(order("tea"))
        ...     await run.result()
        ...     (await what_if(await run.history(), order, replace={0: 100})).value
        4
        101
    """
    definitions = as_definitions(workflow)
    value_codec = codec or Codec(max_bytes=caps.value_bytes, max_depth=caps.nesting)
    recorded, others = _recorded(history, definitions)
    if definitions.find(recorded.run.workflow, recorded.run.version) is None:
        known = ", ".join(sorted(definitions)) or "no definitions"
        msg = f"run {recorded.run.run_id!r} is of {recorded.run.workflow!r}, which is not among {known}"
        raise UsageError(msg)
    values = {str(position): value for position, value in (replace or {}).items()}
    by_id = {each.run.run_id: each for each in others}
    copied = copy_of(
        recorded,
        by_id.get,
        run_id=f"{recorded.run.run_id}:what-if",
        at=None if at is None else str(at),
        replace=encoded_outcomes(recorded, values, definitions, value_codec),
        now=now_of(recorded),
    )
    return await rehearsed(copied, definitions, stand_ins=stand_ins, signals=signals, codec=value_codec, caps=caps)


def now_of(recorded: RunHistory) -> float:
    """When the last thing that is recorded of a run happened: time continues from there."""
    return max(event.at for event in (*recorded.events, *recorded.pending))


async def rehearsed(
    copied: Copy,
    definitions: Definitions,
    *,
    stand_ins: Mapping[StandFor, Callable[..., Any]] | None,
    signals: SignalsToSend | None,
    codec: Codec,
    caps: Caps = DEFAULT_CAPS,
) -> DryRun[Any]:
    """
    Resume a copy in memory.

    Raises:
        DryRunError: A run that it waits for is not at hand, or a stand-in fits nothing.
    """
    if copied.absent:
        raise _missing(copied.absent[0])
    settings = backend_of(Engine(MEMORY, definitions.all(), codec=codec.hooks, caps=caps)).settings
    stands = StandIns(stand_ins or {}, definitions)
    async with rehearsing(settings, stands, now=now_of(copied.run)) as rehearsal:
        journal = rehearsal.journal
        await journal.import_runs([*copied.needed, copied.run])
        for each in copied.needed:
            if status_of(each) not in ENDS:
                await journal.get(each.run.run_id).resume()
        run = journal.get(copied.run.run.run_id)
        await (run.retry() if status_of(copied.run) == "failed" else run.resume())
        return await rehearsal.play(run, signals or {})


def _missing(absent: Absent) -> DryRunError:
    """What to do about a child that is not at hand."""
    at = f" at {absent.position}" if absent.position else ""
    return DryRunError(
        f"child {absent.run_id!r}{at} of run {absent.parent!r}",
        "it has no outcome yet, so it would continue as well, and its recorded run is not at hand: give a list with "
        f"its RunHistory (or an export made with --tree), or give its outcome: replace={{{absent.position!r}: ...}}",
    )


def encoded_outcomes(
    recorded: RunHistory, values: Mapping[str, Any], definitions: Definitions, codec: Codec
) -> dict[str, Payload]:
    """
    Values that replace outcomes, encoded by what the definitions say that a command returns.

    Raises:
        EncodeError: One cannot be recorded as that.
    """
    types = types_at(recorded, values, definitions)
    return {
        position: _encoded(value, types.get(position), f"replacement at {position}", codec)
        for position, value in values.items()
    }


def _encoded(value: Any, type_: Any, where: str, codec: Codec) -> Payload:
    return codec.encode_by_value(value, where=where) if type_ is None else codec.encode(value, type_, where=where)


def types_at(recorded: RunHistory, positions: Iterable[str], definitions: Definitions) -> dict[str, Any]:
    """What the commands at *positions* return, as far as that is known."""
    found: dict[str, Any] = {}
    for position in positions:
        name = getattr(command_at(recorded, position), "name", None)
        types = [] if name is None else result_types(name, definitions)
        if len(types) == 1:
            found[position] = types[0]
    return found


def _recorded(
    history: AnyHistory | Sequence[RunHistory], definitions: Definitions
) -> tuple[RunHistory, Sequence[RunHistory]]:
    """The run, and the others that came with it."""
    if isinstance(history, (str, os.PathLike)):
        return only_root(read_histories(history), os.fspath(history))
    if isinstance(history, Sequence) and history and isinstance(history[0], RunHistory):
        first, *others = (each for each in history if isinstance(each, RunHistory))
        return first, others
    return recorded_run(history, definitions), ()  # type: ignore[arg-type]  # no list of runs: told just above


def only_root(runs: Sequence[RunHistory], where: str) -> tuple[RunHistory, Sequence[RunHistory]]:
    """
    The run that led to all others of an exported journal, and those others.

    Raises:
        UsageError: There is none, or more than one.
    """
    found = roots(runs)
    if len(found) != 1:
        named = ", ".join(repr(each.run.run_id) for each in found[:5])
        msg = (
            f"{where} has {len(found)} runs that none of the others started ({named or 'it is empty'}), expected one: "
            "give a list with the one that is meant first, see durable.read_histories"
        )
        raise UsageError(msg)
    return found[0], [each for each in runs if each is not found[0]]

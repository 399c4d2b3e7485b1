"""
What a run is started with: a `NewRun`, of which an embedded engine would write a row, told to a server.

Its arguments are those of the server's workflow, one payload each; all else stands in a memo. A run that another
program starts, with plain JSON and no memo, begins as its definition says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from attrs import evolve, frozen
from temporalio.api.common.v1 import Payload as Envelope
from temporalio.common import (
    Priority,
    RawValue,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)

from durable._core import run_ids
from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec, Payload
from durable._core.codec.json_text import dumps, loads
from durable._core.program.ops import RunOp
from durable._core.recorded.export_format import RunHistory
from durable._shell.rows import templates
from durable._shell.rows.new_runs import make_run
from durable._shell.rows.rows import NewRun, SentSignal
from durable.errors import UsageError
from durable.temporal._wire.payloads import from_plain, packed, plain, split_arguments, unpacked_text

#: The memo that says what a run is; and those that its workflow publishes.
MEMO: Final = "durable"
ATTRIBUTES: Final = "durable_attributes"
BLOCKED: Final = "durable_blocked"
PAUSED: Final = "durable_paused"
PROGRESS: Final = "durable_progress"
COMPENSATED: Final = "durable_compensated"
BATCHES: Final = "durable_batches"
#: The search attribute, a keyword list, that holds the labels of runs as ``name=value``.
LABELS: Final = SearchAttributeKey.for_keyword_list("DurableLabels")

#: What a key that is taken means for who starts: the server's policy about runs that have ended.
_REUSE: Final = {
    "rerun": WorkflowIDReusePolicy.ALLOW_DUPLICATE,
    "replace": WorkflowIDReusePolicy.ALLOW_DUPLICATE,
    "rerun-failed": WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
}
#: Of the tail of the server's run id that makes runs of one key differ. (Its first digits are the time.)
_TAIL: Final = 8


@frozen
class Start:
    """A run to be started on a server."""

    new: NewRun

    @property
    def workflow_id(self) -> str:
        """Its id there: its key, if it has one, so that the server keeps that unique."""
        return self.new.run_id if self.new.key is None else self.new.key

    @property
    def arguments(self) -> list[RawValue]:
        """What the server's workflow is called with."""
        return [*split_arguments(self.new.started.value or "[[],{}]"), *sent_signals(self.new.signals)]

    @property
    def memo(self) -> dict[str, RawValue]:
        """All else that is known of it."""
        return {MEMO: packed(templates.to_json([evolve(self.new, started=evolve(self.new.started, value=None))]))}

    @property
    def priority(self) -> Priority:
        """Of the server's, which knows 1 (first) to 5; ours are any whole numbers, higher first."""
        ours = self.new.priority
        return Priority(priority_key=min(5, max(1, 3 - ours))) if ours else Priority.default

    @property
    def delay(self) -> timedelta | None:
        """Before it may begin."""
        due_at = self.new.due_at
        return None if due_at is None else timedelta(seconds=max(0.0, due_at - self.new.started.at))

    @property
    def reuse(self) -> WorkflowIDReusePolicy:
        """Whether it may have the id of a run that has ended."""
        return _REUSE.get(self.new.on_conflict, WorkflowIDReusePolicy.REJECT_DUPLICATE)


def make_start(
    op: RunOp[Any],
    *,
    definitions: Definitions,
    codec: Codec,
    now: float,
    run_id: str | None = None,
    position: str | None = None,
    arguments: Payload | None = None,
    keys: tuple[str | None, str] | None = None,
    carried: str = "",
) -> Start:
    """
    As `make_run`, for a server.

    Raises:
        DefinitionError, EncodeError: As `make_run`.
        UsageError: It is given what no server can do; the message says what to use instead.
    """
    new = make_run(
        op, definitions=definitions, codec=codec, allocate=_no_number, now=now, run_id=run_id, position=position,
        arguments=arguments, keys=keys, carried=carried,
    )  # fmt: skip
    _refuse(new)
    return Start(new)


def _no_number() -> int:
    return 0


def _refuse(new: NewRun) -> None:
    what = f"{new.kind} {new.workflow!r}"
    if new.key is not None and new.chosen_id:
        msg = f"{what}: on Temporal a key is the id of the run there, so it has a key= or an id=, not both"
        raise UsageError(msg)
    if new.key_ttl is not None:
        msg = (
            f"{what}: key_ttl= is not known on Temporal, where a key is taken as long as its namespace keeps the run. "
            "Put the period into the key itself (f'report-{day}'), or start it with on_conflict='rerun'"
        )
        raise UsageError(msg)
    if new.on_conflict == "coalesce":
        msg = (
            f"{what}: on_conflict='coalesce' needs one journal that knows all runs. On Temporal let one endless "
            "workflow take the latest arguments as a signal, and continue_as itself"
        )
        raise UsageError(msg)
    for each in new.follow_ups:
        _refuse(each)


def start_of_journal(history: RunHistory) -> Start:
    """How a run is started that continues from a journal; its arguments are there."""
    facts, started = history.run, history.started
    new = NewRun(
        run=0,
        run_id=facts.run_id,
        workflow=facts.workflow,
        version=facts.version,
        kind=facts.kind,
        queue=facts.queue,
        priority=facts.priority,
        key=facts.key if facts.key_live else None,
        arguments=facts.arguments or "",
        labels=facts.labels,
        started=started,
        timeout=facts.timeout,
        position=facts.position,
        retry=facts.retry,
        follow_ups=tuple(templates.from_json(facts.follow_ups)) if facts.follow_ups else (),
        limit=facts.limit,
        limit_key=facts.limit_key or "",
    )
    return Start(new)


# --- memos ---------------------------------------------------------------------------------------


def memo_of(new: NewRun) -> dict[str, RawValue]:
    """*new* as a memo, for a run that continues."""
    return Start(new).memo


def memo_of_batches(batches: Sequence[str]) -> dict[str, RawValue]:
    """The batch that a run is a member or callback of, and those around that."""
    return {BATCHES: packed(dumps([*batches]))} if batches else {}


def batches_in(raw: Mapping[str, Envelope]) -> list[str]:
    """What `memo_of_batches` made, as a workflow has it."""
    found = raw.get(BATCHES)
    return [] if found is None else loads(unpacked_text(found))


def new_run_in(raw: Mapping[str, Envelope]) -> NewRun | None:
    """What the memo says of a run, as its workflow has it; None if another program has started it."""
    found = raw.get(MEMO)
    return None if found is None else templates.from_json(unpacked_text(found))[0]


def new_run_from(decoded: Mapping[str, Any]) -> NewRun | None:
    """As `new_run_in`, of a memo that a client has decoded."""
    found = decoded.get(MEMO)
    return None if found is None else templates.from_json(dumps(found))[0]


def labels_of(new: NewRun) -> TypedSearchAttributes | None:
    """The labels as they are searched for; None if there are none."""
    if not new.labels:
        return None
    return TypedSearchAttributes(
        [SearchAttributePair(LABELS, [f"{name}={value}" for name, value in new.labels.items()])]
    )


def sent_signals(signals: tuple[SentSignal, ...]) -> list[RawValue]:
    """Signals that come with a start, as one marked argument."""
    if not signals:
        return []
    return [packed(dumps([[each.name, plain(each.payload or "null")] for each in signals]), "signals")]


def signals_in(marked: Mapping[str, RawValue]) -> list[tuple[str, Payload]]:
    """What `sent_signals` sent, as (name, payload)."""
    found = loads(unpacked_text(marked["signals"])) if "signals" in marked else []
    return [(name, from_plain(value)) for name, value in found]


# --- ids -----------------------------------------------------------------------------------------


def keyed_run_id(workflow_id: str, server_run_id: str) -> str:
    """The id of a run with a key: keys may be used again, and ids of children and idempotency keys must not."""
    return f"{workflow_id}@{server_run_id[-_TAIL:]}"


def workflow_id_of(run_id: str) -> str:
    """The id on the server of the run called *run_id*."""
    run_id = run_ids.predecessor(run_id) or run_id  # one that continues another run has the id of that
    base, _, tail = run_id.rpartition("@")
    return base if base and len(tail) == _TAIL and tail.isalnum() else run_id

"""
Turns an op into the run that it starts: names, options, key, arguments as recorded.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from attrs import evolve

from durable._core.admission import Places
from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec, Payload
from durable._core.journal.events import RunStarted
from durable._core.journal.payloads import call_digest, encoded_signal, keys_of
from durable._core.policies.limits import limit_name
from durable._core.policies.retry import recorded
from durable._core.program.definition import check_labels, check_name, check_run_id
from durable._core.program.functions import RunnableDefinition
from durable._core.program.ops import RunOp
from durable._shell.rows.rows import NewRun, ReadyRun, SentSignal, ready_run
from durable._shell.rows.templates import to_json
from durable.errors import DefinitionError

#: Deepest chain of children: each adds its position to the id. 50 levels are promised.
MAX_ID_LENGTH = 2_000


def new_run_id(now: float) -> str:
    """A fresh id that sorts by time: 11 hex digits of milliseconds, 10 random ones."""
    return f"{int(now * 1000):011x}-{secrets.token_hex(5)}"


def check_known(definition: RunnableDefinition[..., Any], definitions: Definitions) -> None:
    """
    See that runs of *definition* can be started.

    Raises:
        DefinitionError: If it is not among *definitions*.
    """
    if not definitions.knows(definition):
        known = "another one of that name is" if definition.name in definitions else "it is not"
        msg = f"{definition!r} cannot be started: {known} among the definitions given to Engine"
        raise DefinitionError(msg)


def make_run(
    op: RunOp[Any],
    *,
    definitions: Definitions,
    codec: Codec,
    allocate: Callable[[], int],
    now: float,
    places: Places | None = None,
    run_id: str | None = None,
    is_tick: bool = False,
    parent: int | None = None,
    position: str | None = None,
    arguments: Payload | None = None,
    keys: tuple[str | None, str] | None = None,
    carried: str = "",
) -> NewRun:
    """
    The run that *op* starts, not yet recorded. *arguments* and *keys* are those of *op*, if they are known already.

    *run_id* is its id where the caller has chosen none; that of a tick is found again, as a chosen one is.

    *carried* are the context variables that its steps see: of who starts it, or of the run that does.

    *places* give it a place in line; templates, and those recorded from outside, get theirs from `placed`.

    Raises:
        DefinitionError: If its workflow or job is not among *definitions*; or a function for its keys failed.
        UsageError: The chosen id is one that the engine makes by itself.
        EncodeError: If an argument cannot be recorded.
    """
    definition: RunnableDefinition[..., Any] = op.definition
    check_known(definition, definitions)
    options, given = definition.options, op.given
    if arguments is None:
        where = f"arguments of {op.describe()}"
        arguments = codec.encode_arguments(op.args, op.kwargs, definition.arguments, where=where)
    chosen = is_tick or given.id is not None
    found_id = run_id or new_run_id(now) if is_tick or given.id is None else check_run_id(given.id)
    if parent is None or len(found_id) > MAX_ID_LENGTH:  # that of a child is its parent's, and a position
        check_name("a run id", found_id, MAX_ID_LENGTH)
    labels = options.labels
    if given.labels:
        labels = {**labels, **given.labels}
        check_labels(op.describe(), labels)
    key, limit_key = keys or keys_of(op, arguments, codec)
    delay = given.delay if given.at is None else None
    due_at = given.at if delay is None else now + delay
    is_delayed = due_at is not None and due_at > now  # then it gets its place when that is over
    timeout = given.timeout
    if timeout is None and definition.kind == "workflow":
        timeout = options.timeout
    expires_at = given.expires_at if given.expires is None else now + given.expires
    queue = check_name("a queue", given.queue) if given.queue else definition.queue
    return NewRun(
        run=allocate(),
        run_id=found_id,
        workflow=definition.name,
        version=options.version,
        kind=definition.kind,
        queue=queue,
        place=0.0 if is_delayed or places is None else places.place(queue, definition.name, parent, labels),
        priority=options.priority if given.priority is None else given.priority,
        key=key,
        arguments=f"{definition.name}:{call_digest(op, arguments, codec)}" if key is not None or chosen else "",
        labels=labels,
        started=RunStarted(definition.name, options.version, found_id, arguments, now, carried),
        due_at=due_at if is_delayed else None,
        timeout=timeout,
        expires=given.expires,
        expires_at=expires_at,
        parent=parent,
        position=position,
        on_conflict=given.on_conflict or ("join" if key is None else options.on_conflict),
        chosen_id=chosen,
        key_ttl=given.key_ttl if given.key_ttl is not None else options.key_ttl,
        delay=delay,
        limit=None if options.limit is None else limit_name(options.limit),
        limit_key=limit_key,
        retry=None if given.retry is None else recorded(given.retry),
        signals=()
        if not given.signals
        else tuple(SentSignal(*encoded_signal(signal, payload, codec)) for signal, payload in given.signals),
        follow_ups=()
        if not given.then
        else tuple(make_template(each, definitions=definitions, codec=codec, carried=carried) for each in given.then),
    )


def placed(new: NewRun, places: Places) -> NewRun:
    """*new* with a place in the line of its queue; without, if it gets one when its delay is over."""
    if new.due_at is not None:
        return new
    return evolve(new, place=places.place(new.queue, new.workflow, new.parent, new.labels))


def make_template(op: RunOp[Any], *, definitions: Definitions, codec: Codec, carried: str = "") -> NewRun:
    """
    What *op* starts when its time comes: a follow-up, a callback. See `templates.begun`.

    Raises:
        DefinitionError, EncodeError: As `make_run`.
    """
    return make_run(op, definitions=definitions, codec=codec, allocate=_no_number, now=0.0, carried=carried)


def _no_number() -> int:
    return 0


def unborn(new: NewRun) -> ReadyRun:
    """*new* as its creation will report it, if it may begin at once."""
    return ready_run(new, to_json(new.follow_ups) if new.follow_ups else None, [])

"""
New runs as plain data: how they travel, and how they are kept to be started later.

A template is a `NewRun` whose number, id and times are still to come: a follow-up of a run, a
callback of a batch, the run of a schedule. Payloads are text, or bytes as base64 where codec
hooks made them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from attrs import asdict, evolve
from attrs import fields as attrs_fields

from durable._core.events import RunStarted
from durable._shell.rows import NewRun
from durable.errors import UsageError

#: Names of a new run's fields, and their defaults (where they have one).
_FIELDS: dict[str, Any] = {attribute.name: attribute.default for attribute in attrs_fields(NewRun)}


def begun(template: NewRun, *, run: int, run_id: str, now: float) -> NewRun:
    """The run that *template* starts *now*; its own id, where it has chosen one."""
    run_id = template.run_id if template.chosen_id else run_id
    due_at = template.due_at if template.delay is None else now + template.delay
    return evolve(
        template,
        run=run,
        run_id=run_id,
        started=evolve(template.started, seed=run_id, at=now),
        due_at=None if due_at is None or due_at <= now else due_at,
        deadline=None if template.timeout is None else now + template.timeout,
    )


def to_json(templates: Iterable[NewRun]) -> str:
    """Templates as they are kept."""
    return json.dumps([to_plain(each) for each in templates], default=default, ensure_ascii=False)


def from_json(text: str) -> list[NewRun]:
    """The templates in *text*."""
    return [from_plain(each) for each in json.loads(text, object_hook=revive)]


def to_plain(run: NewRun) -> dict[str, Any]:
    """A new run as plain data: what has its default is left out."""
    plain = {name: getattr(run, name) for name, standard in _FIELDS.items() if getattr(run, name) != standard}
    plain["started"] = asdict(run.started)
    plain["labels"] = dict(run.labels)
    if run.follow_ups:
        plain["follow_ups"] = [to_plain(each) for each in run.follow_ups]
    return plain


def from_plain(plain: dict[str, Any]) -> NewRun:
    """
    The new run in plain data.

    Raises:
        UsageError: If a release with other fields wrote it.
    """
    try:
        fields: dict[str, Any] = {**plain, "started": RunStarted(**plain["started"])}
        fields["follow_ups"] = tuple(from_plain(each) for each in plain.get("follow_ups", ()))
        return NewRun(**fields)
    except (TypeError, KeyError) as error:
        msg = f"a new run in another form than this release knows: {error}"
        raise UsageError(msg) from error


def default(value: object) -> Any:
    """Bytes as JSON data."""
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(type(value).__name__)


def revive(plain: dict[str, Any]) -> Any:
    """Bytes that `default` wrote."""
    if len(plain) == 1 and isinstance(plain.get("$bytes"), str):
        return base64.b64decode(plain["$bytes"])
    return plain

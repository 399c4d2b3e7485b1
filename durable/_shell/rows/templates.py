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
from types import NoneType
from typing import Any, get_args

from attrs import asdict, evolve
from attrs import fields as attrs_fields

from durable._core.journal.events import RunStarted
from durable._core.program import retry
from durable._core.program.ops import OnConflict
from durable._shell.rows.rows import NewRun
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


def checked_json(text: str, where: str) -> str:
    """
    Templates that came from another file, as they are kept here: without the runs and batches of that one.

    Raises:
        UsageError: They are none.
    """
    try:
        found = [checked(each) for each in json.loads(text, object_hook=revive)]
    except (UsageError, TypeError, ValueError, RecursionError) as error:
        msg = f"{where}: no runs to be started later: {error}"
        raise UsageError(msg) from error
    return to_json(found)


def checked(plain: Any) -> NewRun:
    """
    The new run in plain data that came from elsewhere, without what only the owner of a file can say.

    Rows of these types will be inserted when it is too late to complain, or long after.

    Raises:
        UsageError: It is none.
    """
    try:
        return _checked(plain)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        msg = f"no new run: {error}"
        raise UsageError(msg) from error


def _checked(plain: dict[str, Any]) -> NewRun:
    here = {"run": 0, "parent": None, "position": None, "follows": None, "batch": None, "callback": None, "behind": ()}
    following = tuple(checked(each) for each in plain.get("follow_ups", ()))
    template = evolve(from_plain({**plain, **here, "follow_ups": ()}), follow_ups=following)
    for owner in (template, template.started):
        for attribute in attrs_fields(type(owner)):
            _check_type(attribute.name, str(attribute.type), getattr(owner, attribute.name))
    if template.on_conflict not in get_args(OnConflict) or not all(map(_is_text, template.labels.items())):
        msg = f"no way to start a run: on_conflict {template.on_conflict!r:.40}, labels {template.labels!r:.40}"
        raise UsageError(msg)
    if template.retry is not None:
        retry.from_record(template.retry)
    return template


def _check_type(name: str, kind: str, found: Any) -> None:
    types = _TYPES.get(kind)
    if types is None:
        return
    fits = isinstance(found, types) and (not isinstance(found, bool) or bool in types)
    if not fits or (isinstance(found, (int, float)) and not abs(found) < _BOUND):
        msg = f"{name}: expected {kind}, found {found!r:.40}"
        raise UsageError(msg)


def _is_text(pair: tuple[Any, Any]) -> bool:
    return all(isinstance(each, str) for each in pair)


#: Of what SQLite keeps as a number; NaN and infinity are none.
_BOUND = 2**63
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "str | None": (str, NoneType),
    "int | None": (int, NoneType),
    "float | None": (int, float, NoneType),
    "Payload | None": (str, bytes, NoneType),
    "Mapping[str, str]": (dict,),
}


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

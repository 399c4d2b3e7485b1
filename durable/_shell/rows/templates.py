"""
New runs as plain data: how they travel, and how they are kept to be started later.

A template is a `NewRun` whose number, id and times are still to come: a follow-up of a run, a
callback of a batch, the run of a schedule. Payloads are text, or bytes as base64 where codec
hooks made them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from attrs import evolve
from attrs import fields as attrs_fields

from durable._core.codec.records import bytes_to_plain, record_codec
from durable._core.codec.rules.classes import KEY
from durable._core.journal.events import RunStarted
from durable._shell.rows.rows import NewRun
from durable.errors import DecodeError, UsageError

#: Closed: a field of a newer release would say more of a run than this one can do.
RECORDS: Final = record_codec(closed=True)
#: Of the fields: name, key, and default (where there is one).
_OF_RUN, _OF_START = (
    [(each.name, each.metadata.get(KEY, each.name), each.default) for each in attrs_fields(cls)]
    for cls in (NewRun, RunStarted)
)

#: Fields of a new run that say which others of its file it belongs to, and what they are of a run that does not.
_TIES: Final[dict[str, Any]] = {
    "run": 0, "parent": None, "position": None, "follows": None, "batch": None, "callback": None, "behind": (),
}  # fmt: skip


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
        expires_at=template.expires_at if template.expires is None else now + template.expires,
    )


def to_json(templates: Iterable[NewRun]) -> str:
    """Templates as they are kept."""
    return json.dumps([to_plain(each) for each in templates], default=bytes_to_json, ensure_ascii=False)


def from_json(text: str) -> list[NewRun]:
    """
    The templates in *text*.

    Raises:
        DecodeError: If a release with other fields wrote it, or anybody else.
    """
    found: list[NewRun] = RECORDS.decode(text, list[NewRun], where="runs to be started later")
    return found


def to_plain(run: NewRun) -> dict[str, Any]:
    """A new run as plain data: what has its default is left out. Its names may be of subclasses of str."""
    plain = _told(run, _OF_RUN)
    plain["started"] = _told(run.started, _OF_START)
    plain["labels"] = dict(run.labels)
    if run.signals:
        plain["signals"] = [{"name": each.name, "payload": each.payload} for each in run.signals]
    if run.follow_ups:
        plain["follow_ups"] = [to_plain(each) for each in run.follow_ups]
    return plain


def _told(record: NewRun | RunStarted, fields: Sequence[tuple[str, str, Any]]) -> dict[str, Any]:
    return {key: getattr(record, name) for name, key, standard in fields if getattr(record, name) != standard}


def checked_json(text: str, where: str) -> str:
    """
    Templates that came from another file, as they are kept here.

    Raises:
        UsageError: They are none. Their rows would be inserted long after anybody could complain.
    """
    try:
        return to_json([without_ties(each) for each in from_json(text)])
    except DecodeError as error:
        raise UsageError(error.about(where)) from error


def without_ties(run: NewRun) -> NewRun:
    """A new run that came from elsewhere, without what only the owner of a file knows: its runs and batches."""
    if not run.follow_ups and all(getattr(run, name) == absent for name, absent in _TIES.items()):
        return run  # as nearly all are: a copy would take as long as reading it
    return evolve(run, **_TIES, follow_ups=tuple(without_ties(each) for each in run.follow_ups))


def bytes_to_json(value: object) -> Any:
    """For `json.dumps`: bytes as data."""
    if isinstance(value, bytes):
        return bytes_to_plain(value)
    raise TypeError(type(value).__name__)

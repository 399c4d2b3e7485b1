"""
What a person may want changed or left out before runs leave a journal: every value, every free text.

Positions, names, kinds and times stay: they are what a history is. Hooks get values as plain
JSON, decoded by the application's codec where there is one, since who encrypts a journal may well
export a readable excerpt; a redacted value leaves as plain JSON too. Digests of arguments are left out: what is short
can be found out by them. So ids of runs, and names that the code gives (of steps, signals, memos, patches, members of
groups), are not for secrets.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, TypeAlias

from attrs import evolve

from durable._core.codec.codec import Codec, Payload
from durable._core.codec.json_text import dumps, loads
from durable._core.journal.events import (
    KIND_NAMES,
    CallbackOpened,
    Event,
    GroupOpened,
    OutcomeResolved,
    RunStarted,
    SlotAwaited,
    TimerSet,
)
from durable._core.light_frozen import late_frozen
from durable._core.recorded.export_format import RunFacts, RunHistory, StepNote
from durable.errors import UsageError


@late_frozen
class Redacted:
    """
    A value on its way out of the journal, for a redaction hook: it returns the value, or what leaves instead.

    Attributes:
        run_id, workflow: Whose it is.
        event: Name of the event that holds it, as "StepSucceeded"; "Run" for facts of the run
            itself; "Note" for cursors and memos; "Item" and "FollowUp" for arguments of runs to come.
        position: Of the command; None for what is the whole run's.
        name: Of the step, child, group, signal or memo; or which fact it is: ``key``, ``labels``,
            ``attributes``, ``reason``, ``dedup``, ``queue``, ``limit_key``, ``by`` (who resolved a step), ``label``.
        value: As plain JSON data: arguments are ``[[...], {...}]``, errors are objects with ``type``,
            ``message`` and ``traceback``.
    """

    run_id: str
    workflow: str
    event: str
    position: str | None
    name: str
    value: Any


#: What `Redacted` values become.
Redact: TypeAlias = Callable[[Redacted], Any]


def redacted(history: RunHistory, redact: Redact, codec: Codec) -> RunHistory:
    """
    *history* with every value as *redact* returns it.

    Raises:
        UsageError: The hook returned what cannot stand there; the error says what.
        DecodeError: A value is bytes that *codec* cannot read.
    """
    return _Redaction(history.run, redact, codec).of(history)


class _Redaction:
    """One run on its way out."""

    def __init__(self, run: RunFacts, redact: Redact, codec: Codec) -> None:
        self._run, self._redact, self._codec = run, redact, codec
        self._names: dict[str, str] = {}

    def of(self, history: RunHistory) -> RunHistory:
        """*history*, redacted."""
        events = [self._event(event) for event in history.events]
        run = history.run
        return evolve(
            history,
            run=evolve(
                run,
                key=self._text("Run", None, "key", run.key),
                reason=self._text("Run", None, "reason", run.reason),
                labels=self._labels(run),
                attributes=self._payload("Run", None, "attributes", run.attributes),
                follow_ups=self._follow_ups(run.follow_ups),
                queue=run.queue if run.queue == "default" else self._text("Run", None, "queue", run.queue) or "",
                limit_key=self._text("Run", None, "limit_key", run.limit_key),
                arguments=None,
            ),
            events=events,
            pending=[self._event(event) for event in history.pending],
            notes=[self._note(note) for note in history.notes],
            feeds=[
                evolve(
                    feed,
                    template=self._follow_ups(feed.template) or "",
                    items=tuple(
                        evolve(item, value=self._payload("Item", feed.position, item.child, item.value))
                        for item in feed.items
                    ),
                )
                for feed in history.feeds
            ],
            dedups=[self._text("Run", None, "dedup", dedup) or "" for dedup in history.dedups],
        )

    def _call(self, event: str, position: str | None, name: str, value: Any) -> Any:
        return self._redact(Redacted(self._run.run_id, self._run.workflow, event, position, name, value))

    def _event(self, event: Event) -> Event:
        position, name = event.position, event.name
        if position is not None and name:
            self._names[position] = name
        elif position is not None:
            name = self._names.get(position, "")
        elif event.category == "start" or event.outcome == "continued":
            name = self._run.workflow
        kind = KIND_NAMES[event.kind]
        changed: dict[str, Any] = {}
        if event.value is not None:
            changed["value"] = self._payload(kind, position, name, event.value)
        if isinstance(event, RunStarted) and event.carried:
            changed["carried"] = ""  # of use to the steps of the application alone
        if event.reason:
            changed["reason"] = self._text(kind, position, "reason", event.reason) or ""
        if isinstance(event, OutcomeResolved) and event.by:
            changed["by"] = self._text(kind, position, "by", event.by) or ""
        if isinstance(event, GroupOpened | TimerSet) and event.label:
            changed["label"] = self._text(kind, position, "label", event.label) or ""
        if isinstance(event, SlotAwaited) and event.key:
            changed["key"] = self._text(kind, position, "limit_key", event.key) or ""
        if isinstance(event, CallbackOpened):  # whoever has it may answer
            changed["nonce"] = ""
        if event.digest:  # what is short can be found out by its digest
            changed["digest"] = ""
        return evolve(event, **changed)

    def _note(self, note: StepNote) -> StepNote:
        return evolve(note, value=self._payload("Note", note.position, note.name, note.value))

    def _payload(self, event: str, position: str | None, name: str, payload: Payload | None) -> Payload | None:
        if payload is None:
            return None
        where = f"{event} of run {self._run.run_id!r}"
        plain = self._codec.load_plain(payload, where=where)
        return self._dump(f"{where}, {name!r}", self._call(event, position, name, plain))

    def _dump(self, where: str, found: Any) -> str:
        try:
            return dumps(found)
        except (TypeError, ValueError, RecursionError) as error:
            msg = f"the redaction hook returned what is not JSON for {where}: {error}"
            raise UsageError(msg) from error

    def _text(self, event: str, position: str | None, name: str, text: str | None) -> str | None:
        if text is None:
            return None
        found = self._call(event, position, name, self._codec.reveal(text))
        if isinstance(found, str):
            return found
        where = f"{event}.{name} of run {self._run.run_id!r}"
        msg = f"the redaction hook must return a string for {where}: found {found!r:.40}"
        raise UsageError(msg)

    def _labels(self, run: RunFacts) -> dict[str, str]:
        if not run.labels:
            return {}
        found = self._call("Run", None, "labels", dict(run.labels))
        if isinstance(found, dict) and all(isinstance(each, str) for pair in found.items() for each in pair):
            return found
        where = f"the labels of run {run.run_id!r}"
        msg = f"the redaction hook must return a dict of strings for {where}: found {found!r:.40}"
        raise UsageError(msg)

    def _follow_ups(self, text: str | None) -> str | None:
        if text is None:
            return None
        templates: list[dict[str, Any]] = loads(text)
        for template in templates:
            self._template(template)
        return self._dump("follow-ups", templates)

    def _template(self, template: dict[str, Any]) -> None:
        """Redact a run to come, and those that follow it."""
        started = template["started"]
        value = started.get("value")
        if isinstance(value, dict):  # bytes that codec hooks made, as `templates` writes them
            value = base64.b64decode(value["$bytes"])
        started["value"] = self._payload("FollowUp", None, str(template.get("workflow", "")), value)
        started.pop("carried", None)
        template["arguments"] = ""
        for name in ("key", "labels", "queue", "limit_key"):
            if template.get(name) and template[name] != "default":
                template[name] = self._call("FollowUp", None, name, template[name])
        for following in template.get("follow_ups", ()):
            self._template(following)

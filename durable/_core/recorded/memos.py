"""
The memos of a run, as its notes tell of them; and what a call of a language model used, where its memo says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from durable._core.codec.codec import Payload
from durable._core.light_frozen import light_frozen
from durable._core.recorded.export_format import StepNote

#: How the notes are called that are memos; and what stands before it once their step has succeeded.
_MEMO: Final = "memo:"
_KEPT: Final = "kept:"
#: Where the frameworks that we know write what a call used, within what it answered; and what they call it.
_USED: Final = ("usage", "usage_metadata")
_TOKENS_IN: Final = ("input_tokens", "prompt_tokens")
_TOKENS_OUT: Final = ("output_tokens", "completion_tokens")
_COST: Final = "cost"
#: Levels of a value that are searched, and members of it.
_DEPTH: Final = 6
_MEMBERS: Final = 1_000


@light_frozen
class RecordedMemo:
    """What one `memo` of a step has recorded."""

    #: Of its step.
    position: str
    #: "NAME"; of the nth use of a name in the step "NAME:n".
    name: str
    value: Payload | None
    #: When it was recorded.
    at: float


@light_frozen
class Used:
    """What calls of language models used."""

    tokens_in: int = 0
    tokens_out: int = 0
    #: In US dollars; None where nobody says.
    cost: Decimal | None = None

    def __add__(self, other: Used) -> Used:
        """Both together; a cost that is not known counts as none."""
        known = [each.cost for each in (self, other) if each.cost is not None]
        return Used(
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            sum(known, Decimal()) if known else None,
        )

    def __str__(self) -> str:
        """In words: "50 tokens in, 5 out, $0.0012"."""
        cost = "" if self.cost is None else f", ${self.cost:.6f}".rstrip("0").rstrip(".")
        return f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out{cost}"


def memos_in(notes: Iterable[StepNote]) -> list[RecordedMemo]:
    """Those of *notes* that are memos, in the order in which they were recorded."""
    found = [
        RecordedMemo(note.position, name, note.value, note.at)
        for note in notes
        if (name := memo_name(note.name)) is not None
    ]
    return sorted(found, key=lambda memo: memo.at)


def memo_name(note: str) -> str | None:
    """What the memo is called that a note of this name is; None if it is none."""
    name = note.removeprefix(_KEPT)
    return name.removeprefix(_MEMO).removesuffix(":1") if name.startswith(_MEMO) else None


def used_by(payload: Any) -> Used | None:
    """
    What a recorded answer says that it used, in tokens and dollars; None if it says nothing.

    It is found where OpenAI, Anthropic, Pydantic AI, the Agents SDK and LangChain put it, and wherever somebody's own
    loop does as they do: ``{"usage": {"input_tokens": 50, "output_tokens": 5, "cost": "0.0012"}}``, at any depth.
    """
    if not isinstance(payload, str) or not any(f'"{name}"' in payload for name in _USED):
        return None
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    found = [_used(each) for each in _usages(value)]
    return sum(found, Used()) if found else None


def _usages(value: Any) -> Iterator[dict[str, Any]]:
    """The mappings in *value*, outermost first, that say what was used; what stands within one is a part of it."""
    level, seen = [value], 0
    for _ in range(_DEPTH):
        below: list[Any] = []
        for each in level:
            members = each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ()
            for name, member in members:
                seen += 1
                if seen > _MEMBERS:
                    return
                if name in _USED and isinstance(member, dict):
                    yield member
                elif isinstance(member, (dict, list)):
                    below.append(member)
        level = below


def _used(usage: dict[str, Any]) -> Used:
    return Used(_count(usage, _TOKENS_IN), _count(usage, _TOKENS_OUT), _dollars(usage.get(_COST)))


def _count(usage: dict[str, Any], names: Iterable[str]) -> int:
    return next((usage[name] for name in names if type(usage.get(name)) is int), 0)


def _dollars(value: Any) -> Decimal | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        cost = Decimal(str(value))
    except InvalidOperation:
        return None
    return cost if cost.is_finite() else None

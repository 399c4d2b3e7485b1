"""
Which commands an error is the failure of: they are marked where they are delivered, so that a retry finds them.
"""

from __future__ import annotations

from durable._core.codec.exceptions.parts import attribute, cause_of, context_of, members_of, set_attribute

_MARK = "__durable_position__"
#: Errors around and within one that are looked at: each may lead to many, or back to itself.
_MOST_ERRORS = 10_000


def mark(error: BaseException, position: str) -> BaseException:
    """*error*, as the failure of the command at *position*."""
    set_attribute(error, _MARK, position)
    return error


def positions_in(error: BaseException) -> list[str]:
    """Positions of the commands whose failures *error* is, wraps, or groups."""
    found: dict[str, None] = {}
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending and len(seen) < _MOST_ERRORS:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        position = attribute(each, _MARK)
        if position is not None:
            found[position] = None
        else:
            pending += reversed(members_of(each) or (cause_of(each), context_of(each)))
    return list(found)

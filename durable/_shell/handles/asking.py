"""
Asking a run: a request is recorded, and its answer waited for.
"""

from __future__ import annotations

import secrets
from typing import Any

from durable._core.codec.codec import Payload
from durable._core.journal.payloads import encoded_question
from durable._core.program.requests import Request
from durable._shell.backend import Backend
from durable._shell.requests.run_requests import AskRun
from durable.errors import RequestRefusedError, RequestUnansweredError, RunBlockedError


async def put_question(
    backend: Backend,
    run_id: str,
    request: str | Request[Any, Any],
    question: Any,
    dedup: str | None = None,
    *,
    new_id: str = "",
) -> str:
    """
    Record a request; its id: that of the first under *dedup*, *new_id*, or one made by chance.

    Raises:
        RunNotFoundError, RunStateError, RequestConflictError, EncodeError: Nothing was asked.
    """
    name, payload = encoded_question(request, question, backend.codec)
    asked = AskRun(run_id, name, payload, backend.codec.digest(payload), new_id or secrets.token_hex(16), dedup)
    return await backend.request(asked)


async def answer(backend: Backend, run_id: str, asked: str, name: str) -> Payload | None:
    """
    What answers the request *asked* of a run, called *name*, as it is recorded.

    Raises:
        RequestRefusedError, RequestUnansweredError, RunBlockedError: There is no answer, or none without a person.
        RunNotFoundError: The run was pruned.
    """
    row = await backend.answer_of(asked, run_id)
    if row.answered and row.refused:
        reason: str = backend.codec.decode(row.answer or '""', str, where=f"refusal of request {name!r}")
        raise RequestRefusedError(row.run_id, name, reason)
    if row.answered:
        return row.answer
    if row.ended:
        raise RequestUnansweredError(row.run_id, name, "continued as another" if row.continued else row.status)
    raise RunBlockedError(row.run_id, row.reason or "")


async def ask(
    backend: Backend, run_id: str, request: str | Request[Any, Any], question: Any, dedup: str | None = None
) -> Any:
    """The answer of a run. Raises as `put_question` and `answer`."""
    asked = await put_question(backend, run_id, request, question, dedup)
    name, type_ = (request.name, request.answer) if isinstance(request, Request) else (request, Any)
    found = await answer(backend, run_id, asked, name)
    return backend.codec.decode(found or "null", type_, where=f"answer to request {name!r}")

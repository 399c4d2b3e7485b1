"""
Asking a run: a request is recorded, and its answer waited for.
"""

from __future__ import annotations

import secrets
from typing import Any

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
    """Record a request; its id: that of the first under *dedup*, *new_id*, or one made by chance. Raises as `ask`."""
    name, payload = encoded_question(request, question, backend.codec)
    asked = AskRun(run_id, name, payload, backend.codec.digest(payload), new_id or secrets.token_hex(16), dedup)
    return await backend.request(asked)


async def ask(
    backend: Backend, run_id: str, request: str | Request[Any, Any], question: Any, dedup: str | None = None
) -> Any:
    """
    The answer of a run.

    Raises:
        RequestRefusedError, RequestUnansweredError, RunBlockedError: There is none, or none without a person.
        RunNotFoundError, RunStateError, RequestConflictError, EncodeError: Nothing was asked.
    """
    codec = backend.codec
    asked = await put_question(backend, run_id, request, question, dedup)
    name, type_ = (request.name, request.answer) if isinstance(request, Request) else (request, Any)
    row = await backend.answer_of(asked, run_id)
    if row.answered and row.refused:
        reason: str = codec.decode(row.answer or '""', str, where=f"refusal of request {name!r}")
        raise RequestRefusedError(row.run_id, name, reason)
    if row.answered:
        return codec.decode(row.answer or "null", type_, where=f"answer to request {name!r}")
    if row.ended:
        raise RequestUnansweredError(row.run_id, name, "continued as another" if row.continued else row.status)
    raise RunBlockedError(row.run_id, row.reason or "")

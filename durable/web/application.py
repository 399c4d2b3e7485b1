"""
The ASGI application: which page a request is for, and whether it may be had.

Mounted or alone, it holds nothing open between two requests: what it is mounted in need not run its lifespan.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from durable._cli.terminal.problems import NOT_FOUND, CommandError
from durable.errors import (
    BatchNotFoundError,
    CapExceededError,
    DecodeError,
    DurableError,
    EncodeError,
    RunNotFoundError,
    RunStateError,
    ScheduleNotFoundError,
    UsageError,
)
from durable.web.call import Call, RefusedError, placed
from durable.web.guard import HEADERS, Authorize, access_of, cross_origin, wrong_host
from durable.web.pages import batches, check, debug, overview, queues, run, runs, schedules
from durable.web.source import Source

Page: TypeAlias = Callable[[Call], Awaitable[Response]]

#: What is looked at.
PAGES: Final[Mapping[str, Page]] = {
    "": overview.overview,
    "runs": runs.listed,
    "run": run.summary,
    "run/timeline": run.timeline,
    "run/graph": run.graph,
    "run/history": run.history,
    "run/stream": run.stream,
    "run/value": run.value,
    "run/export": run.export,
    "run/debug": debug.debug,
    "debug": debug.exported,
    "schedules": schedules.listed,
    "batches": batches.listed,
    "batch": batches.one,
    "queues": queues.listed,
    "check": check.check,
}
#: What changes something: asked for by POST, by those who may write.
CHANGES: Final[Mapping[str, Page]] = {
    "runs/change": runs.change,
    "run/change": run.change,
    "run/signal": run.signal,
    "run/fork": run.fork,
    "run/resolve": run.resolve,
    "schedules/change": schedules.change,
    "queues/change": queues.change,
}
#: What is sent by POST because of its size, and changes nothing.
SENT: Final[Mapping[str, Page]] = {"debug": debug.exported}

_FILES: Final[Mapping[str, str]] = {
    "static/durable.css": "text/css",
    "static/durable.js": "text/javascript",
    "static/icon.svg": "image/svg+xml",
}
OK: Final = 200
_NOT_FOUND: Final = (RunNotFoundError, BatchNotFoundError, ScheduleNotFoundError)


class Dashboard:
    """What `dashboard` returns: an ASGI application."""

    def __init__(
        self, source: Source, authorize: Authorize | None, title: str | None, hosts: frozenset[str] | None
    ) -> None:
        self._source = source
        self._authorize = authorize
        self._title = source.name if title is None else title
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":  # a websocket: there is none
            await send({"type": "websocket.close", "code": 1000})
            return
        response = await self._answer(Request(scope, receive))
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        prefix, page = placed(request.scope)
        refusal = wrong_host(request.headers, self._hosts)
        if refusal is not None:
            return Response(refusal, 421, media_type="text/plain")
        if page in _FILES:
            return _file(page)
        access = await access_of(request, self._authorize)
        if access is None:
            return Response("not for you: authorize() of this dashboard says so", 403, media_type="text/plain")
        if not self._source.may_change:
            access = "read"
        query = dict(parse_qsl(request.scope.get("query_string", b"").decode("latin-1")))
        call = Call(request, self._source, access, self._title, prefix, page, query)
        tag = call.tag if request.method == "GET" else None
        if tag is not None and request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        response = await self._made(call)
        if tag is not None and response.status_code == OK:
            response.headers["ETag"] = tag
        return response

    async def _made(self, call: Call) -> Response:
        try:
            return await _page_of(call)(call)
        except RefusedError as error:
            return call.answer("problem.html", error.status, problem=str(error))
        except _NOT_FOUND as error:
            return call.answer("problem.html", 404, problem=str(error))
        except CommandError as error:
            return call.answer("problem.html", 404 if error.code == NOT_FOUND else 400, problem=str(error))
        except (EncodeError, DecodeError, CapExceededError) as error:
            return call.answer("problem.html", 400, problem=str(error))
        except (UsageError, RunStateError) as error:
            return call.answer("problem.html", 409, problem=str(error))
        except DurableError as error:
            return call.answer("problem.html", 503, problem=str(error))
        except TimeoutError as error:
            said = str(error) or "no worker of a queue that this is about has answered in time"
            return call.answer("problem.html", 503, problem=said)


def _page_of(call: Call) -> Page:
    method = call.request.method
    if method in ("GET", "HEAD"):
        if call.page in PAGES:
            return PAGES[call.page]
        raise RefusedError(405 if call.page in CHANGES else 404, f"there is no page {call.page!r:.80}")
    if method != "POST":
        raise RefusedError(405, f"{method:.20} is nothing that a page is asked by")
    if (refusal := cross_origin(call.request.headers)) is not None:
        raise RefusedError(403, f"refused: {refusal}")
    if call.page in SENT:
        return SENT[call.page]
    if call.page not in CHANGES:
        raise RefusedError(404, f"there is nothing called {call.page!r:.80}")
    if not call.source.may_change:
        raise RefusedError(403, f"{call.source.name} is only looked at here")
    if call.access != "write":
        raise RefusedError(403, "this dashboard is read-only for you: its authorize() would have to say 'write'")
    return CHANGES[call.page]


def _file(page: str) -> Response:
    folder, _, name = page.partition("/")
    body = (files("durable.web") / folder / name).read_bytes()
    return Response(body, media_type=_FILES[page], headers={"Cache-Control": "public, max-age=300"})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message: Message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return

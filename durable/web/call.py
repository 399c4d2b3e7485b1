"""
One request for a page: who asks, for what, of which journal; and how the page is answered.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode

from attrs import field, frozen
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from durable.web.guard import Access
from durable.web.journal import Journal
from durable.web.rendering import rendered
from durable.web.source import Source

#: Seconds for which a page of a file that has not changed is good: the ages on it grow meanwhile.
FRESH: Final = 10
#: Pages that each page leads to.
MENU: Final = (
    ("", "Overview"),
    ("runs", "Runs"),
    ("schedules", "Schedules"),
    ("batches", "Batches"),
    ("queues", "Queues"),
    ("check", "Check"),
    ("debug", "Debug"),
)
#: Bytes of a form: a signal's payload is capped by the journal, at 1 MiB unless the engine says otherwise.
MOST_BYTES: Final = 8 * 1024 * 1024


class RefusedError(Exception):
    """The request cannot be answered: the status, and why, for the person who asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@frozen
class Call:
    """A request, and what its page needs."""

    request: Request
    source: Source
    access: Access
    title: str
    #: What the host mounted the dashboard at: "" or "/admin".
    prefix: str
    #: Which page: "", "runs", "run/history".
    page: str
    query: Mapping[str, str]
    #: Of the whole page, epoch seconds. The clock of the reader: journals may be looked at on other machines.
    now: float = field(factory=time.time)

    @property
    def journal(self) -> Journal:
        """
        The file that is shown, for pages that mean nothing anywhere else.

        Raises:
            RefusedError: The runs are not in a file.
        """
        if not isinstance(self.source, Journal):
            raise RefusedError(404, f"{self.page!r:.80} is of a journal: {self.source.name} is none")
        return self.source

    @property
    def menu(self) -> list[tuple[str, str]]:
        """The pages that there are, with their names."""
        return [(page, name) for page, name in MENU if page in self.source.pages]

    def link(self, page: str = "", /, **query: Any) -> str:
        """The address of a page; what is None or empty in *query* is left out."""
        given = [(name.rstrip("_"), str(value)) for name, value in query.items() if value not in (None, "")]
        return f"{self.prefix}/{page}" + (f"?{urlencode(given)}" if given else "")

    def here(self, **changed: Any) -> str:
        """The address of this page, with other *changed* parts of the query."""
        return self.link(self.page, **{**self.query, **changed})

    @property
    def tag(self) -> str | None:
        """What the page is made of, for `ETag`: the file, who asks, and, since it tells ages, the time."""
        state = self.source.state()
        return None if state is None else f'"{state}-{self.access}-{int(self.now // FRESH)}"'

    def answer(self, template: str, status: int = 200, **context: Any) -> Response:
        """A page made of a template."""
        return HTMLResponse(rendered(template, {"call": self, "now": self.now, **context}), status)

    def go_to(self, page: str, /, **query: Any) -> Response:
        """After something was changed: look at it."""
        return RedirectResponse(self.link(page, **query), 303)

    def asked(self, name: str) -> str:
        """
        A part of the query that the page cannot do without.

        Raises:
            RefusedError: It is missing.
        """
        found = self.query.get(name)
        if not found:
            raise RefusedError(400, f"which one? The address has no {name}=")
        return found

    def number(self, name: str, default: int | None = None) -> int | None:
        """A whole number of the query; *default* where it has none, or something else."""
        text = self.query.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else default  # noqa: PLR2004 - SQLite's integers

    async def form(self) -> dict[str, str]:
        """
        The fields of a form that was sent.

        Raises:
            RefusedError: It is too large.
        """
        return dict(parse_qsl((await self.body()).decode(errors="replace"), keep_blank_values=True))

    async def body(self) -> bytes:
        """
        What was sent.

        Raises:
            RefusedError: It is too large.
        """
        found = bytearray()
        async for part in self.request.stream():
            found += part
            if len(found) > MOST_BYTES:
                raise RefusedError(413, f"more than {MOST_BYTES:,} bytes")
        return bytes(found)


def placed(scope: Mapping[str, Any]) -> tuple[str, str]:
    """
    Where a dashboard is mounted, and which page is asked for, of an ASGI scope.

    Starlette and FastAPI leave the path whole and name its beginning in `root_path`. Litestar cuts it off, names
    nothing, and adds a slash; what it cut off is still there in `raw_path`.
    """
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    if root:
        return root, path.removeprefix(root).strip("/")
    page = path.strip("/")
    raw = unquote(bytes(scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")).rstrip("/")
    cut_off = raw.removesuffix(page).rstrip("/") if raw.endswith(page) else ""
    return ("" if raw.strip("/") == page else cut_off), page

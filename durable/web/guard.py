"""
Who may look, who may change something, and what a browser is told to refuse. Around every page, before it is made.

No tokens: browsers say where a request comes from (fetch metadata, and the Origin of every POST), which is what
OWASP's cheat sheet on cross-site request forgery and Go's `http.CrossOriginProtection` rely on.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from starlette.requests import Request

#: What a visitor may do.
Access: TypeAlias = Literal["read", "write"]
#: Given a request: "read", "write", or None for neither. True and False are short for "read" and None.
Authorize: TypeAlias = "Callable[[Request], Access | bool | Awaitable[Access | bool | None] | None]"

#: Only files of ours, no inline anything, in nobody's frame.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: Names of the machine itself. A page of the internet whose name is made to point here still says its own.
LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


async def access_of(request: Request, authorize: Authorize | None) -> Access | None:
    """What the visitor may do: only look, where nobody decides."""
    if authorize is None:
        return "read"
    said = authorize(request)
    found = await said if inspect.isawaitable(said) else said
    if found is True:
        return "read"
    return found if found in ("read", "write") else None


def wrong_host(headers: Mapping[str, str], hosts: frozenset[str] | None) -> str | None:
    """Why a request is refused for the name it was sent to (DNS rebinding); None if it is not."""
    if hosts is None:
        return None
    name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    if name in hosts:
        return None
    return f"this dashboard answers to {', '.join(sorted(hosts))}, and not to {name!r:.80}"


def cross_origin(headers: Mapping[str, str]) -> str | None:
    """Why a request that changes something is refused for where it comes from; None if it is not."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return None if site in ("same-origin", "none") else f"it was sent by another site ({site!r:.40})"
    origin = headers.get("origin")
    if origin is None:  # no browser of the last years: curl, or a script of somebody who may
        return None
    same = urlsplit(origin).netloc == headers.get("host")
    return None if same else f"it was sent by {origin!r:.80}"

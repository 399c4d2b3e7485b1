"""
What the answer of an HTTP server means for the attempt of a step: done, again later, or never.

Knows no HTTP library: httpx, requests, aiohttp and urllib call the same things by two names.
"""

from __future__ import annotations

import math
import time
from typing import Any, Final, TypeVar

from durable.errors import Fatal, HttpStatusError, RetryAfter

R = TypeVar("R")

#: Beside 500 and above: "Request Timeout" and "Too Many Requests" (RFC 9110, RFC 6585).
_ANOTHER_TIME: Final = frozenset((408, 429))
_FIRST_FAILURE: Final = 400
_SERVER_FAILURES: Final = 500
#: A server that asks for more is not waited for any longer: a year, in seconds.
_LONGEST: Final = 365 * 86_400.0
_LONGEST_URL: Final = 200


def retry_http(response: R) -> R:
    """
    *response*, if it is a success; else what its status means for the step that asked.

    ``answer = retry_http(await http.post(...))``. A `Retry-After` header, in seconds or as a date (RFC 9110, 10.2.3),
    becomes the delay of the next attempt.

    Args:
        response: Of httpx, requests, aiohttp or urllib, or anything with a `status_code` or `status`, and `headers`.

    Raises:
        RetryAfter: 408, 429, or 500 and above, and the server says when to come again.
        HttpStatusError: The same without that: the step's own `retry=` decides.
        Fatal: Any other status from 400 on, from an `HttpStatusError`: asking again would not help.
        TypeError: It has no status.

    Example:
        >>> @dataclass
        ... class Response:  # of any client: httpx, requests, aiohttp ...
        ...     status_code: int
        ...     headers: dict[str, str]
        >>> retry_http(Response(200, {})).status_code
        200
        >>> retry_http(Response(503, {"Retry-After": "30"}))
        Traceback (most recent call last):
        durable.errors.RetryAfter: ...
    """
    given: Any = response
    status: Any = getattr(given, "status_code", None)
    if status is None:
        status = getattr(given, "status", None)
    if not isinstance(status, int):
        msg = f"retry_http takes the response of an HTTP client, found {type(response).__name__} without a status"
        raise TypeError(msg)
    if status < _FIRST_FAILURE:
        return response
    failure = HttpStatusError(int(status), _url(given))
    if status < _SERVER_FAILURES and status not in _ANOTHER_TIME:
        raise Fatal(str(failure)) from failure
    seconds = _seconds(getattr(given, "headers", None))
    if seconds is None:
        raise failure
    raise RetryAfter(seconds, f"{failure}, to be asked again in {seconds:g} s") from failure


def _url(response: Any) -> str:
    """Where it came from, without the query, which may hold secrets; "" if it does not say."""
    return str(getattr(response, "url", None) or "").partition("?")[0][:_LONGEST_URL]


def _seconds(headers: Any) -> float | None:
    """What `Retry-After` says, as seconds from now; None if it says nothing that can be understood."""
    found = _header(headers, "retry-after")
    if found is None:
        return None
    try:
        seconds = float(found)
    except ValueError:
        from email.utils import parsedate_to_datetime  # noqa: PLC0415 - with all of `email`: for those who are told a date

        try:
            until = parsedate_to_datetime(found).timestamp()
            served = _header(headers, "date")  # by the server's clock, which may be another than ours
            seconds = until - (time.time() if served is None else parsedate_to_datetime(served).timestamp())
        except ValueError:
            return None
    return min(max(seconds, 0.0), _LONGEST) if math.isfinite(seconds) else None


def _header(headers: Any, name: str) -> str | None:
    if not hasattr(headers, "items"):
        return None
    return next((str(value).strip() for key, value in headers.items() if str(key).lower() == name), None)

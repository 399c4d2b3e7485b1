"""
`retry_http`: the statuses of real responses of several clients, and what a step makes of them.
"""

import http.client
import threading
import time
import urllib.error
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import httpx
import pytest

from durable import Engine, Fatal, HttpStatusError, Retry, RetryAfter, RunFailedError, now, retry_http, step, workflow

URL = "http://desk.example/rides?token=secret"


def by_httpx(status, headers):
    return httpx.Response(status, headers=headers, request=httpx.Request("GET", URL))


def by_requests(status, headers):
    return SimpleNamespace(status_code=status, headers=headers, url=URL)


def by_aiohttp(status, headers):
    return SimpleNamespace(status=status, headers=headers, url=httpx.URL(URL))


def by_urllib(status, headers):
    message = http.client.HTTPMessage()
    for name, value in headers.items():
        message[name] = value
    return urllib.error.HTTPError(URL, status, "", message, None)


CLIENTS = (by_httpx, by_requests, by_aiohttp, by_urllib)


@pytest.mark.parametrize("client", CLIENTS)
def test_each_status_means_the_same_from_every_client(client):
    """
    Success is given back; 408, 429 and failures of the server are for another time; the rest is final.
    """
    for status in (200, 204, 304):
        response = client(status, {})
        assert retry_http(response) is response
    for status in (400, 401, 403, 404, 409, 410, 422):
        with pytest.raises(Fatal, match=rf"HTTP status {status} from http://desk.example/rides$"):
            retry_http(client(status, {"Retry-After": "3"}))
    for status in (408, 429, 500, 502, 503, 504):
        with pytest.raises(HttpStatusError) as failed:
            retry_http(client(status, {}))
        assert (failed.value.status, failed.value.url) == (status, "http://desk.example/rides")
        with pytest.raises(RetryAfter) as later:
            retry_http(client(status, {"retry-after": "3"}))
        assert later.value.seconds == 3.0


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": " 0.5 "}, 0.5),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "1e300"}, 365 * 86_400.0),
        ({"Retry-After": "Mon, 30 Nov 2026 10:00:30 GMT", "Date": "Mon, 30 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"Retry-After": "Mon, 30 Nov 2026 09:00:00 GMT", "Date": "Mon, 30 Nov 2026 10:00:00 GMT"}, 0.0),
    ],
)
def test_a_server_says_when_to_come_again(headers, seconds):
    """
    In seconds or as a date, which is by the server's own clock; within reason.
    """
    with pytest.raises(RetryAfter) as later:
        retry_http(by_requests(503, headers))
    assert later.value.seconds == seconds


def test_a_date_without_that_of_the_answer_counts_by_our_clock():
    """
    As servers without a clock are to leave theirs out.
    """
    with pytest.raises(RetryAfter) as later:
        retry_http(by_httpx(503, {"Retry-After": formatdate(time.time() + 60, usegmt=True)}))
    assert later.value.seconds == pytest.approx(60, abs=2)


@pytest.mark.parametrize("said", ["soon", "", "inf", "nan", "Mon, 99 Foo"])
def test_what_cannot_be_understood_is_as_if_nothing_was_said(said):
    """
    The step's own policy decides then.
    """
    with pytest.raises(HttpStatusError):
        retry_http(by_requests(503, {"Retry-After": said}))


@pytest.mark.parametrize("wrong", [None, 503, "503", SimpleNamespace(status="OK"), SimpleNamespace(status_code=None)])
def test_what_is_no_response_is_refused(wrong):
    """
    By the type that was found.
    """
    with pytest.raises(TypeError, match="without a status"):
        retry_http(wrong)


class Desk(BaseHTTPRequestHandler):
    """Says in order what its server is to say."""

    def do_GET(self):
        status, headers = self.server.answers.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def desk():
    server = HTTPServer(("127.0.0.1", 0), Desk)
    server.answers = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.anyio
async def test_a_step_asks_again_when_it_was_told_to(desk, tmp_db):
    """
    A real server: overloaded with a date, failing without one, then well; and one that says no.
    """
    url = f"http://127.0.0.1:{desk.server_port}/"

    @step(retry=Retry(attempts=5, delay=0.01))
    async def ask(wanted: str) -> int:
        async with httpx.AsyncClient() as client:
            return retry_http(await client.get(wanted)).status_code

    @workflow
    async def asking(wanted: str) -> float:
        began = now()
        await ask(wanted)
        return (now() - began).total_seconds()

    async with Engine(tmp_db, [asking]) as engine:
        desk.answers = [(429, {"Retry-After": "0.2"}), (502, {}), (200, {})]
        assert await engine.run(asking(url)) >= 0.2
        assert desk.answers == []
        desk.answers = [(404, {}), (200, {})]
        with pytest.raises(RunFailedError, match="HTTP status 404"):
            await engine.run(asking(url))
        assert len(desk.answers) == 1

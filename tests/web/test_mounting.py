"""
A dashboard among the routes of a host: Starlette, FastAPI, Litestar; behind a proxy; alone, by `durable ui`.
"""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import corner_shop as shop
import httpx
import pytest
from fastapi import FastAPI
from litestar import Litestar, asgi, get
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from visiting import Links

from durable.web import dashboard


def in_starlette(shown):
    routes = [Route("/hello", lambda request: PlainTextResponse("host")), Mount("/ops/durable", shown)]
    return Starlette(routes=routes)


def in_fastapi(shown):
    app = FastAPI()
    app.get("/hello")(lambda: "host")
    app.mount("/ops/durable", shown)
    return app


def in_litestar(shown):
    @get("/hello")
    async def hello() -> str:
        return "host"

    return Litestar([hello, asgi("/ops/durable", is_mount=True)(shown)])


# Litestar's own machinery for background tasks and its deprecations are not ours to judge.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("host", [in_starlette, in_fastapi, in_litestar])
async def test_every_link_stays_under_the_mount(host, shop_db):
    """
    Pages, files and forms are found where the host put the dashboard; its own routes are as they were.
    """
    app = host(dashboard(shop_db, app=shop.DEFINITIONS, authorize=lambda request: "write"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://host") as client:
        assert "host" in (await client.get("/hello")).text
        seen, ahead = set(), ["/ops/durable/"]
        while ahead:
            link = ahead.pop()
            answer = await client.get(link)
            assert answer.status_code == 200, link
            if not answer.headers["content-type"].startswith("text/html"):
                continue
            for found in Links(answer.text).found:
                assert found.startswith(("/ops/durable/", "#")), found
                plain = found.partition("?")[0]
                if plain not in seen and not found.startswith("#"):
                    seen.add(plain)
                    ahead.append(found)
        assert {f"/ops/durable/{page}" for page in ("runs", "run", "run/timeline", "run/debug", "queues")} <= seen


async def test_behind_a_proxy_links_have_its_prefix(shop_db):
    """
    A proxy that cuts off a prefix says so by the root path.
    """
    transport = httpx.ASGITransport(app=dashboard(shop_db), root_path="/behind")
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
        links = Links((await client.get("/behind/runs")).text).found
    assert links
    assert all(link.startswith(("/behind/", "#")) for link in links)


def ui(*arguments):
    found = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "durable", "ui", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": found},
    )  # fmt: skip


def test_ui_serves_the_dashboard_alone(own_db):
    """
    `durable ui` says where, shows the journal, lets it be changed with --write, and ends by Ctrl-C.
    """
    process = ui("--db", str(own_db), "--app", "corner_shop", "--write", "--port", "0")
    url = re.search(r"http://\S+", process.stdout.readline())[0]
    try:
        with urllib.request.urlopen(f"{url}run/debug?id=bad&at=failure", timeout=10) as answer:
            assert "card declined" in answer.read().decode()
        sent = urllib.request.Request(f"{url}run/change", b"id=asking&change=pause", {"Sec-Fetch-Site": "same-origin"})
        with urllib.request.urlopen(sent, timeout=10) as answer:
            assert "is paused" in answer.read().decode()
        evil = urllib.request.Request(url, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="421"):
            urllib.request.urlopen(evil, timeout=10)
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 0, said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--write", "--host", "0.0.0.0"], "there is no login"),
        (["--port", "99999"], "is not a port"),
        (["--app", "no_such_module"], "no module"),
    ],
)
def test_ui_refuses_what_makes_no_sense(own_db, arguments, said):
    """
    One line says why.
    """
    process = ui("--db", str(own_db), *arguments)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert said in err
    assert "Traceback" not in err

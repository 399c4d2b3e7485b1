"""
The dashboard of runs on a cluster: over HTTP, from a real server of pages, with nothing to press.
"""

import asyncio
import contextlib
import re
import sys
import uuid
from pathlib import Path

import httpx
import pytest
import uvicorn

from durable import (
    Limit,
    RunCancelledError,
    RunFailedError,
    Schedule,
    job,
    progress,
    set_attributes,
    step,
    wait_for,
    workflow,
)
from durable.temporal import TemporalEngine
from durable.web import dashboard
from tests.temporal import app

WEB_UI = "http://temporal.example:8233"
HOSTILE = "<script>alert(1)</script>"


@step
async def price(item: str) -> int:
    if item == "piano":
        raise ValueError("too heavy")
    return len(item) * 100


@job(queue="mail")
async def tell(who: str) -> str:
    return f"told {who}"


@workflow
async def buy(who: str, item: str) -> str:
    cents = await price(item)
    set_attributes(cents=cents)
    progress(1, 2, "priced")
    told = await tell(who)
    return told if await wait_for("approved", bool) else "refused"


@step(limit=Limit("door", concurrency=1))
async def enter() -> None:
    await asyncio.Event().wait()


@workflow
async def enters() -> None:
    await enter()


ALL = [buy, tell, enters]


@contextlib.asynccontextmanager
async def served(shown):
    """
    *shown* behind a real port; a client of it.
    """
    config = uvicorn.Config(shown, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server, listening = uvicorn.Server(config), config.bind_socket()
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=address, timeout=30, trust_env=False) as visitor:
            yield visitor
    finally:
        server.should_exit = True
        await serving
        listening.close()


@pytest.fixture
async def engine(engines):
    return await engines(*ALL, web_ui=WEB_UI)


async def page(visitor, address, code=200):
    answer = await visitor.get(address)
    assert answer.status_code == code, answer.text[:2000]
    return answer.text


async def shown_in(visitor, address, *texts):
    """
    The page, once it has all of *texts*: lists of the server are behind.
    """
    async with asyncio.timeout(20):
        while True:
            text = await page(visitor, address)
            if all(each in text for each in texts):
                return text
            await asyncio.sleep(0.1)


async def waiting(run):
    async with asyncio.timeout(20):
        while not any(wait.kind == "signal" for wait in await run.waits()):
            await asyncio.sleep(0.02)


async def test_runs_are_listed_and_chosen_by_the_filters_that_the_server_knows(engine):
    """
    By status, workflow, queue, label and id; by what else a file is asked, it says that it cannot.
    """
    run = await engine.start(buy("ada", "tea"), labels={"tenant": "ada"})
    failed = await engine.start(buy(HOSTILE, "piano"))
    await waiting(run)
    with pytest.raises(RunFailedError):
        await failed.result()
    async with served(dashboard(engine)) as visitor:
        text = await shown_in(visitor, "/runs", run.id, failed.id, "running")
        assert "pending" not in re.sub("<option>.*?</option>", "", text)
        assert HOSTILE not in text
        assert failed.id not in await shown_in(visitor, "/runs?status=open", run.id)
        assert run.id not in await shown_in(visitor, "/runs?status=failed", failed.id)
        assert failed.id not in await shown_in(visitor, "/runs?label=tenant%3Dada", run.id)
        (child,) = await run.children()
        assert run.id + '"' not in await shown_in(visitor, "/runs?queue=mail", child.id)
        assert failed.id not in await page(visitor, f"/runs?text={run.id}")
        assert "No runs fit" in await page(visitor, "/runs?text=nobody")
        assert "No runs fit" in await page(visitor, "/runs?until=2020-01-01")
        assert "cannot be chosen by waiting_for" in await page(visitor, "/runs?waiting_for=signal", 400)
        assert "is not a status" in await page(visitor, "/runs?status=blocked", 400)


async def test_a_long_list_is_paged(engine):
    """
    Each run stands on one page, once none of them changes any more.
    """
    runs = await engine.start_many([tell(str(number)) for number in range(60)])
    async with served(dashboard(engine)) as visitor:
        async with asyncio.timeout(30):
            while len([info async for info in engine.runs(workflow="tell", status="succeeded")]) < 60:
                await asyncio.sleep(0.1)
        found, address = [], "/runs?workflow=tell"
        while address is not None:
            text = await page(visitor, address)
            found += re.findall(r'<tr>\n<td><a class="id"[^>]* title="([^"]+)"', text)
            following = re.search(r'rel="next" href="([^"]+)"', text)
            address = None if following is None else following[1].replace("&amp;", "&")
        assert sorted(found) == sorted(run.id for run in runs)


async def test_one_run_is_told_from_its_journal(engine):
    """
    Why it waits, steps, children, attributes; timeline with a child inside, graph, history, debugger and export; and
    where the server itself shows it.
    """
    run = await engine.start(buy("ada", "tea"), key=f"key-{engine.name[:10]}")
    await waiting(run)
    async with served(dashboard(engine)) as visitor:
        (child,) = await run.children()
        text = await shown_in(visitor, f"/run?id={run.id}", child.id, "priced")
        for each in ("price", "approved", "cents", "300", "ada", "tea", await run.why()):
            assert each in text, each
        assert f'href="{WEB_UI}/namespaces/default/workflows/{run.id}"' in text
        over_time = await page(visitor, f"/run/timeline?id={run.id}&open={child.id}")
        assert "price" in over_time
        assert "tell" in over_time
        assert "<svg" in await page(visitor, f"/run/graph?id={run.id}&as=svg")
        assert "StepSucceeded" in await page(visitor, f"/run/history?id={run.id}")
        assert "await price(item)" in re.sub("<[^>]+>", "", await page(visitor, f"/run/debug?id={run.id}&at=last"))
        assert await page(visitor, f"/run/value?id={run.id}&seq=3") != ""
        exported = await page(visitor, f"/run/export?id={run.id}&tree=yes")
        assert exported.count('{"run":') == 2
        await run.signal("approved", True)
        assert await run.result() == "told ada"
        assert "told ada" in await page(visitor, f"/run?id={run.id}")
        assert "nobody" in await page(visitor, "/run?id=nobody", 404)


async def test_a_failed_run_shows_its_error(engine):
    """
    With the step that it comes from, and nothing of a name as markup.
    """
    run = await engine.start(buy(HOSTILE, "piano"))
    with pytest.raises(RunFailedError):
        await run.result()
    async with served(dashboard(engine)) as visitor:
        text = await page(visitor, f"/run?id={run.id}")
        assert "too heavy" in text
        assert "price" in text
        assert HOSTILE not in text


async def test_batches_are_shown_with_their_members(engine):
    """
    How many have ended, and how.
    """
    async with engine.batch(description="letters") as batch:
        for name in ("ada", "bob"):
            batch.add(tell(name))
    await batch.wait()
    async with served(dashboard(engine)) as visitor:
        assert "2 of 2" in await shown_in(visitor, "/batches", batch.id)
        await shown_in(visitor, f"/batch?id={batch.id}", f"{batch.id}:0", f"{batch.id}:1")
        await page(visitor, "/batch?id=nobody", 404)


async def test_schedules_and_limits_are_shown(engines):
    """
    When a schedule ticks, and who is inside a limit.
    """
    name = f"s-{uuid.uuid4().hex[:6]}"
    daily = Schedule(name, tell("ops"), every=86_400)
    engine = await engines(*ALL, schedules=[daily])
    async with served(dashboard(engine)) as visitor:
        await shown_in(visitor, "/schedules", name, daily.spec)
        assert "Nobody is at a limit" in await page(visitor, "/queues")
        run = await engine.start(enters())
        await shown_in(visitor, "/queues", "door", '<td class="n">1</td>')
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await run.result()
    await engine.schedule(name).delete()


async def test_nothing_is_changed_whatever_authorize_says(engine):
    """
    It decides who looks; there is no button, and what a form would send is refused.
    """
    run = await engine.start(buy("ada", "tea"))
    await waiting(run)
    async with served(dashboard(engine, authorize=lambda _: "write")) as visitor:
        text = await page(visitor, f"/run?id={run.id}")
        assert 'method="post"' not in text
        assert "read-only" in text
        for address in ("/run/change", "/run/signal", "/runs/change", "/schedules/change"):
            answer = await visitor.post(address, data={"id": run.id, "change": "cancel"})
            assert (answer.status_code, "only looked at" in answer.text) == (403, True)
    assert await run.status() == "waiting"
    async with served(dashboard(engine, authorize=lambda request: request.headers.get("x-role"))) as visitor:
        await page(visitor, "/runs", 403)
        assert (await visitor.get("/runs", headers={"x-role": "read"})).status_code == 200


async def test_what_is_of_a_file_is_in_no_menu_and_each_entry_leads_somewhere(engine):
    """
    The first page is the list of runs; the addresses of others say that they are not here.
    """
    async with served(dashboard(engine, title="Rides")) as visitor:
        assert (await visitor.get("/")).headers["location"] == "/runs"
        text = await page(visitor, "/runs")
        menu = re.search('<nav aria-label="Pages">(.*?)</nav>', text, re.DOTALL)[1]
        entries = re.findall('href="([^"]+)"', menu)
        assert "/runs" in entries
        assert "/check" not in entries
        assert "/" not in entries
        for each in entries:
            await page(visitor, each)
        for each in ("/check", "/run/stream?id=x&name=y"):
            assert "is of a journal" in await page(visitor, each, 404)


async def test_a_run_that_no_worker_tells_of_is_shown_as_the_server_has_it(client, queue):
    """
    The page says who is missing, after a moment.
    """
    engine = TemporalEngine(client, queue, ALL, poll=())
    run = await engine.start(buy("ada", "tea"), labels={"tenant": "ada"})
    async with served(dashboard(engine)) as visitor:
        text = await page(visitor, f"/run?id={run.id}")
        assert "what the server knows" in text
        assert "tenant=ada" in text


async def test_the_command_line_serves_it(client, address, queue):
    """
    `durable ui --temporal`, in a process of its own; `--write` is refused.
    """
    arguments = ["ui", "--temporal", address, "--task-queue", queue, "--app", "tests.temporal.app", "--port", "0"]
    command = [sys.executable, "-m", "durable", *arguments, "--temporal-ui", WEB_UI]
    where = Path(__file__).parents[2]
    async with TemporalEngine(client, queue, app.ALL) as engine:
        run = await engine.start(app.order(3))
        await waiting(run)
        process = await asyncio.create_subprocess_exec(
            *command, cwd=where, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            url = (await process.stdout.readline()).decode().split()[0]
            async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as visitor:
                text = await page(visitor, f"/run?id={run.id}")
                assert "reserve" in text
                assert f"{WEB_UI}/namespaces/default/workflows/{run.id}" in text
        finally:
            process.terminate()
            await process.communicate()
    refused = await asyncio.create_subprocess_exec(*command, "--write", cwd=where, stderr=asyncio.subprocess.PIPE)
    _, said = await refused.communicate()
    assert refused.returncode == 2
    assert b"only looked at" in said

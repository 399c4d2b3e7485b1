"""
The pages of the dashboard: what they show, of whom, and what may be done on them. Without a browser.
"""

import json
import re
import sqlite3

import corner_shop as shop
import pytest
from visiting import Links, Visitor

from durable import Client, Engine, Flow, Return, UsageError, memo, read_histories, sleep, step, workflow
from durable.web import dashboard

pytestmark = pytest.mark.anyio

PAGES = ("", "runs", "schedules", "batches", "queues", "check", "debug")
OF_A_RUN = ("run", "run/timeline", "run/graph", "run/history", "run/debug")


@pytest.fixture
def visitor(visit, shop_db):
    return visit(shop_db, app=shop.DEFINITIONS)


# --- looking ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
async def test_every_page_is_whole_and_leads_somewhere(visitor, page):
    """
    Each page answers, and so does every page that it links to.
    """
    answer = await visitor.get(page)
    assert answer.text.rstrip().endswith("</html>")
    for link in set(Links(answer.text).found):
        if link.startswith("/"):
            assert (await visitor.client.get(link)).status_code == 200, link


@pytest.mark.parametrize("page", OF_A_RUN)
@pytest.mark.parametrize("run_id", ["good", "bad", "asking", shop.HOSTILE])
async def test_every_view_of_a_run_is_whole(visitor, page, run_id):
    """
    Of runs that succeeded, failed, wait, and are called what nobody would call a run.
    """
    answer = await visitor.get(page, id=run_id)
    assert answer.text.rstrip().endswith("</html>")


async def test_the_overview_counts_and_names_who_needs_a_person(visitor):
    """
    Counts by status and workflow, what failed and why, the ends of the last hour, the paused queue.
    """
    text = (await visitor.get()).text
    assert "ValueError: card declined for 500" in text
    assert re.search(r"<strong>1</strong> failed", text)
    assert re.search(r"<strong>\d</strong> succeeded, <strong>1</strong> failed, <strong>0</strong> cancelled", text)
    assert "schedule nightly" in text
    assert re.search(r"In the last day: \d+ succeeded, 1 failed, 0 cancelled: [\d.]+ % failed", text)
    assert "paused" in text


async def test_runs_are_filtered_by_the_address(visitor):
    """
    By status, workflow, queue, label, what they wait for, and text: all that is given must hold.
    """

    async def ids(**query):
        text = (await visitor.get("runs", **query)).text
        return {each for each in ("good", "bad", "asking", "late") if f">{each}</a>" in text}

    assert await ids(status="failed") == {"bad"}
    assert await ids(label="tenant=ada") == {"good"}
    assert await ids(workflow="order") == {"good", "bad"}
    assert await ids(queue="mail", status="open") == {"late"}
    assert await ids(waiting_for="decision") == {"asking"}
    assert await ids(text="declined") == {"bad"}
    assert await ids(text="order-1") == {"good"}
    assert await ids(status="succeeded", text="declined") == set()


@pytest.mark.parametrize(
    "query, said",
    [({"status": "happy"}, "is not a status"), ({"label": "tenant"}, "tenant"), ({"since": "soon"}, "not a time")],
)
async def test_a_filter_that_means_nothing_is_told(visitor, query, said):
    """
    The error says what was found, and what there is.
    """
    assert said in (await visitor.get("runs", 400, **query)).text


async def test_lists_are_paged_by_cursor(visit, tmp_db):
    """
    A page holds fifty runs; the link leads to those behind them, and together they are all.
    """
    async with Engine(tmp_db, [shop.tell], concurrency=1) as engine:
        for n in range(120):
            await engine.start(shop.tell(str(n)), id=f"run-{n}", delay=9_999)
    visitor, found, page = visit(tmp_db), [], "/runs"
    while page:
        text = (await visitor.client.get(page)).text
        found += re.findall(r">(run-\d+)</a>", text)
        page = next(iter(re.findall(r'rel="next" href="([^"]+)"', text)), None)
    assert found == [f"run-{n}" for n in reversed(range(120))]


async def test_a_run_tells_what_became_of_it(visitor):
    """
    Input, attributes, the error with its traceback and its source line, the steps, the children.
    """
    text = (await visitor.get("run", id="bad")).text
    for each in (
        "order(&#34;bob&#34;, [&#34;piano&#34;])",
        "card declined for 500",
        "in charge",
        "total",
        "price",
        "tell",
    ):
        assert each in text, each


async def test_what_a_run_waits_for_is_told(visitor):
    """
    The sentence of `why()`, and a row for each wait.
    """
    text = (await visitor.get("run", id="asking")).text
    assert "waits for" in text
    assert "decision" in text


async def test_progress_and_streams_are_seen(visitor):
    """
    How far a run has come, as a bar; what it emitted, item by item, and as one text where it is one.
    """
    text = (await visitor.get("run", id="good")).text
    assert '<progress max="1" value="1.0"' in text
    assert "packing lamp" in text
    text = (await visitor.get("run/stream", id="good", name="packed")).text
    assert "tea lamp" in text
    assert text.count("<tr><td") == 2
    assert "Nothing yet" in (await visitor.get("run/stream", id="good", name="other")).text


async def test_the_history_has_every_event_and_can_show_failures_only(visitor, shop_db):
    """
    As many rows as the run has events; of failures, those.
    """
    async with Client(shop_db) as client:
        events = await client.get("bad").history()
    text = (await visitor.get("run/history", id="bad")).text
    assert text.count('<th scope="row">') == len(events)
    assert text.count("StepFailed") == 1
    text = (await visitor.get("run/history", id="bad", only="failures")).text
    assert "StepFailed" in text
    assert "StepStarted" not in text


async def test_values_and_exports_can_be_had_whole(visitor, tmp_path):
    """
    A value as JSON, a run as `durable export` writes it.
    """
    answer = await visitor.get("run/value", id="good", seq=1)
    assert json.loads(answer.text) == [["ada", ["tea", "lamp"]], {}]
    exported = await visitor.get("run/export", id="bad", tree="yes")
    (tmp_path / "bad.jsonl").write_bytes(exported.content)
    assert {each.run.run_id.partition("~")[0] for each in read_histories(tmp_path / "bad.jsonl")} == {"bad"}


async def test_what_is_not_there_is_said(visitor):
    """
    Unknown pages, runs, batches and events are 404, a missing id 400, each with a sentence.
    """
    assert "there is no page" in (await visitor.get("elsewhere", 404)).text
    assert "nobody" in (await visitor.get("run", 404, id="nobody")).text
    assert "none" in (await visitor.get("batch", 404, id="none")).text
    assert "event 999" in (await visitor.get("run/value", 404, id="good", seq=999)).text
    assert "no id=" in (await visitor.get("run", 400)).text


async def test_a_damaged_run_is_shown_as_far_as_it_can_be_read(visit, own_db):
    """
    The page names the damage, and shows the rest.
    """
    conn = sqlite3.connect(own_db)
    conn.execute(
        "UPDATE durable_events SET value = '\"forged\"' WHERE kind = 11 AND run = "
        "(SELECT run FROM durable_runs WHERE run_id = 'good') AND position = '1'"
    )
    conn.commit()
    conn.close()
    text = (await visit(own_db).get("run", id="good")).text
    assert "damaged" in text
    assert "order(" in text


# --- the debugger -----------------------------------------------------------------------------------------------


async def test_the_debugger_stands_where_the_address_says(visitor):
    """
    At a stop, a command, the failure, a line, the last stop: the source line is marked, the locals are the real ones.
    """
    text = (await visitor.get("run/debug", id="bad", stop=0)).text
    assert "Stop 0 of" in text
    assert "price(item)" in re.search(r'<li class="current".*?</li>', text, re.DOTALL)[0]
    text = (await visitor.get("run/debug", id="bad", at="1")).text
    assert "gather(" in re.search(r'<li class="current".*?</li>', text, re.DOTALL)[0]
    assert re.search(r'<tr class="changed"><th scope="row"><code>total</code></th><td><code>500</code>', text)
    text = (await visitor.get("run/debug", id="bad", at="failure")).text
    assert "raised ValueError: card declined for 500" in text
    line = int(re.search(r"line=(\d+)", text)[1])
    assert f">{line}</span>" in (await visitor.get("run/debug", id="bad", line=line)).text


async def test_an_expression_is_only_evaluated_for_those_who_may_write(visit, shop_db):
    """
    `find` is code: refused to readers.
    """
    reader, writer = visit(shop_db, app=shop.DEFINITIONS), visit(shop_db, app=shop.DEFINITIONS, write=True)
    assert "expression is code" in (await reader.get("run/debug", 403, id="bad", find="total > 100")).text
    assert (
        "charge(total)"
        not in (await writer.get("run/debug", id="bad", find="total == 0")).text.split("current")[1][:200]
    )
    assert "true at no stop" in (await writer.get("run/debug", id="bad", find="total == 12345")).text


async def test_without_code_the_debugger_says_how_to_give_it(visit, shop_db):
    """
    A path knows no code: the page says so, and everything else is shown.
    """
    visitor = visit(shop_db)
    assert "--app" in (await visitor.get("run/debug", 409, id="bad")).text
    assert "No code was given" in (await visitor.get("check")).text


async def test_an_export_is_debugged_as_a_run_is(visitor):
    """
    A file that is sent, by a form or as it is: then its runs can be walked through.
    """
    exported = (await visitor.get("run/export", id="bad")).content
    answer = await visitor.client.post("/debug", files={"export": ("bad.jsonl", exported)})
    assert answer.status_code == 303
    text = (await visitor.client.get(answer.headers["location"])).text
    assert "price(item)" in text
    again = await visitor.client.post("/debug", content=exported, headers={"Content-Type": "application/jsonl"})
    assert again.headers["location"] == answer.headers["location"]
    assert (await visitor.client.post("/debug", content=b"{}")).status_code in (400, 409, 503)


async def test_the_check_tells_what_the_code_would_break(visit, shop_db, own_db):
    """
    The code that wrote the journal breaks nothing; other code of the same name does.
    """
    assert "Nothing would break" in (await visit(shop_db, app=shop.DEFINITIONS).get("check")).text

    @workflow
    async def approval(who: str) -> Flow[bool]:
        yield sleep(1)

    text = (await visit(shop_db, app=[shop.order, approval, shop.tell]).get("check")).text
    assert "diverged" in text


# --- changing ---------------------------------------------------------------------------------------------------


async def test_readers_have_no_buttons_and_cannot_write_without_them(visit, own_db):
    """
    Read-only is the default: there is no form that changes something, and a POST is refused.
    """
    reader = visit(own_db, app=shop.DEFINITIONS)
    for page, query in (("run", {"id": "asking"}), ("queues", {}), ("schedules", {}), ("runs", {"status": "open"})):
        assert 'method="post"' not in (await reader.get(page, **query)).text
    answer = await reader.post("run/change", 403, id="asking", change="cancel")
    assert "read-only" in answer.text
    assert (await visit(own_db).get("run", id="asking")).text.count("cancelled") == 0


async def test_a_writer_signals_with_the_declared_type(visit, own_db):
    """
    The payload is read as the type of the `Signal`: what does not fit is refused, and what does is received.
    """
    writer = visit(own_db, write=True, app=shop)
    refused = await writer.post("run/signal", 400, id="asking", name="decision", payload='{"by": 1}')
    assert "decision" in refused.text
    await writer.post("run/signal", id="asking", name="decision", payload='{"approved": true, "by": "Mia"}')
    async with Engine(own_db, shop.DEFINITIONS) as engine:
        assert await engine.get("asking").result(timeout=10) is True


async def test_a_writer_cancels_pauses_resumes_and_retries(visit, own_db):
    """
    Each button does what the handle's method does; what cannot be is said.
    """
    writer = visit(own_db, write=True, app=shop.DEFINITIONS)
    await writer.post("run/change", id="asking", change="pause")
    assert "paused" in (await writer.get("run", id="asking")).text
    await writer.post("run/change", id="asking", change="resume")
    await writer.post("run/change", id="asking", change="cancel")
    await writer.post("run/change", id="bad", change="retry")
    assert "cannot be done" in (await writer.post("run/change", 400, id="bad", change="explode")).text
    async with Engine(own_db, shop.DEFINITIONS) as engine:
        await engine.idle()
        assert (await engine.get("asking").info()).status == "cancelled"
        assert (await engine.get("bad").info()).status == "failed"  # again: the card is what it is
        assert len([each for each in await engine.get("bad").history() if each.kind == "RunRetried"]) == 1


async def test_a_fork_leads_to_the_new_run(visit, own_db):
    """
    With another outcome at a position, the copy continues from there.
    """
    writer = visit(own_db, write=True, app=shop.DEFINITIONS)
    answer = await writer.post("run/fork", id="bad", at="2", value='"receipt-given"')
    run_id = re.search(r"id=([^&]+)", answer.headers["location"])[1]
    async with Engine(own_db, shop.DEFINITIONS) as engine:
        assert await engine.get(run_id).result(timeout=10) == "receipt-given"


async def test_queues_and_schedules_are_paused_and_resumed(visit, own_db):
    """
    And a schedule is triggered: a run of it is there once an engine is.
    """
    writer = visit(own_db, write=True, app=shop.DEFINITIONS)
    await writer.post("queues/change", name="mail", change="resume")
    await writer.post("schedules/change", name="nightly", change="pause")
    assert "paused" in (await writer.get("schedules")).text
    await writer.post("schedules/change", name="nightly", change="trigger")
    async with Engine(own_db, shop.DEFINITIONS, schedules=shop.SCHEDULES) as engine:
        await engine.get("late").result(timeout=10)
        assert (await engine.schedule("nightly").info()).paused


async def test_many_runs_are_changed_after_a_page_that_names_how_many(visit, own_db):
    """
    First nothing happens but a question; then all that fit are changed, and those that refuse are named.
    """
    writer = visit(own_db, write=True, app=shop.DEFINITIONS)
    asked = (await writer.post("runs/change", 200, change="cancel", waiting_for="decision")).text
    assert "Cancel 2 runs?" in asked
    assert (await writer.get("runs", waiting_for="decision")).text.count("waiting") >= 2
    done = (await writer.post("runs/change", 200, change="cancel", waiting_for="decision", sure="yes")).text
    assert "2 of 2 recorded" in done
    assert "choose runs by a filter" in (await writer.post("runs/change", 400, change="cancel", sure="yes")).text


# --- again and again ------------------------------------------------------------------------------------------------


async def test_a_page_of_a_file_that_has_not_changed_is_not_made_again(visit, own_db):
    """
    Who has it is told so, by its tag; once something has happened, or has become older, it is another one. Readers and
    writers have pages of their own.
    """
    async with Engine(own_db, shop.DEFINITIONS) as engine:
        visitor = visit(engine)
        for _ in range(5):  # a tag is good for some seconds, which may be over at any moment
            tag = (await visitor.get("runs")).headers["ETag"]
            again = await visitor.client.get("/runs", headers={"If-None-Match": tag})
            if again.status_code == 304:
                break
        assert (again.status_code, again.text, again.headers["ETag"]) == (304, "", tag)
        await engine.start(shop.approval("dan"))
        changed = await visitor.client.get("/runs", headers={"If-None-Match": tag})
        assert changed.status_code == 200
        writer = await visit(engine, write=True).client.get("/runs", headers={"If-None-Match": changed.headers["ETag"]})
        assert writer.status_code == 200
        assert "ETag" not in (await visitor.client.get("/nowhere")).headers


async def test_only_what_can_still_change_is_live(visitor):
    """
    The page of a run that has ended is not asked for again.
    """
    for page in ("run", "run/timeline", "run/history"):
        assert "data-live" in (await visitor.get(page, id="asking")).text
        assert "data-live" not in (await visitor.get(page, id="good")).text


# --- of whom ----------------------------------------------------------------------------------------------------


async def test_an_engine_a_client_and_a_path_show_the_same(visit, own_db):
    """
    Beside a live engine, through it, and through a client: one journal.
    """
    async with Engine(own_db, shop.DEFINITIONS) as engine, Client(own_db) as client:
        for shown in (engine, client, own_db):
            assert "card declined" in (await visit(shown).get("run", id="bad")).text
        assert "healthy" in (await visit(engine).get()).text
        await visit(engine, write=True).post("run/change", id="asking", change="cancel")
        await engine.idle()
        assert "cancelled" in (await visit(own_db).get("run", id="asking")).text


async def test_a_journal_in_memory_is_shown_by_its_engine():
    """
    And by nothing else: the path alone is refused, saying so.
    """
    async with Engine(":memory:", shop.DEFINITIONS) as engine:
        await engine.run(shop.order("ada", ["tea"]), id="kept")
        assert "order(" in (await Visitor(dashboard(engine)).get("run", id="kept")).text
    with pytest.raises(UsageError, match="memory"):
        dashboard(":memory:")


async def test_nothing_that_a_journal_holds_becomes_markup(visitor):
    """
    Names, ids, keys, labels and payloads that are scripts stay text, and characters that turn lines around are escaped.
    """
    scripts = len([tag for tag in Links((await visitor.get()).text).tags if tag == "script"])
    for page in ("runs", "run", "run/timeline", "run/graph", "run/history", "run/debug"):
        query = {} if page == "runs" else {"id": shop.HOSTILE}
        text = (await visitor.get(page, **query)).text
        assert "<script>document" not in text
        assert "\u202e" not in text
        links = Links(text)
        assert links.tags.count("script") == scripts
        assert not [name for name in links.attributes if name.startswith("on") or name == "style"]
    drawing = (await visitor.get("run/graph", id=shop.HOSTILE, **{"as": "svg"})).text
    assert "<script>" not in drawing


@step
async def ask_about(topic: str) -> str:
    async def model(text: str) -> dict[str, object]:
        return {"text": f"<script>{text}</script>", "usage": {"input_tokens": 50, "output_tokens": 5, "cost": "0.001"}}

    await memo("model", model, topic)
    return str((await memo("model", model, "again"))["text"])


@workflow
async def asking_models() -> Flow[str]:
    yield Return((yield ask_about("tea")))


async def test_each_call_of_a_model_is_shown_with_what_it_used(visit, tmp_db):
    """
    On the page of the run, with the sum, and in the debugger where its step was asked for; as text, whatever it holds.
    """
    async with Engine(tmp_db, [asking_models]) as engine:
        await engine.run(asking_models(), id="a")
    visitor = visit(tmp_db, app=[asking_models])
    shown, debugged = (await visitor.get("run", id="a")).text, (await visitor.get("run/debug", id="a")).text
    assert shown.count("50 tokens in, 5 out, $0.001") == 2
    assert "2 calls used 100 tokens in, 10 out, $0.002." in shown
    assert debugged.count("50 tokens in, 5 out, $0.001") == 2
    assert "model:2" in debugged
    for text in (shown, debugged):
        assert "&lt;script&gt;tea&lt;/script&gt;" in text
        assert "<script>tea" not in text

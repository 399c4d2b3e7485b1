"""
A product is shown when its images are there, all of them, and not before, whatever happens meanwhile.
"""

import signal
import sqlite3
import threading
from contextlib import closing

import pytest

from durable import Engine
from durable.errors import RunFailedError

PUBLISH = """
import asyncio, sys
from durable import Engine
from product_images import mark_visible, publish, publish_as_batch, upload

async def main(how, folder, server):
    async with Engine(f"{folder}/shop.db", [publish, upload, mark_visible]) as engine:
        if how == "workflow":
            await engine.run(publish(folder, 1, server), key="product-1")
        else:
            batches = [engine.get_batch(info.batch_id) async for info in engine.batches(labels={"product": "1"})]
            batch = batches[0] if batches else await publish_as_batch(engine, folder, 1, server)
            print("OUTCOME", (await batch.wait()).outcome)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def shop(tmp_path):
    """
    A folder with a shop of one product.
    """
    with closing(sqlite3.connect(tmp_path / "shop.db")) as app, app:
        app.execute("CREATE TABLE products (id INTEGER PRIMARY KEY, visible INTEGER)")
        app.execute("INSERT INTO products VALUES (1, 0)")
    return tmp_path


def times_shown(shop):
    with closing(sqlite3.connect(shop / "shop.db")) as app:
        return app.execute("SELECT visible FROM products").fetchone()[0]


@pytest.mark.parametrize("how", ["workflow", "batch"])
def test_killed_while_images_arrive(how, example, start, shop, monkeypatch):
    """
    Killed when five images or more were there: not shown; after a restart the rest is uploaded, and it is shown, once.
    """
    children, lock, answer = [], threading.Lock(), example.Storage.send_response

    def kill_then_answer(self, code, message=None):
        with lock:
            if len(self.images) >= 5 and len(children) == 1:
                children[0].send_signal(signal.SIGKILL)
                children[0].wait()
                children.append(None)
        answer(self, code, message)

    monkeypatch.setattr(example.Storage, "send_response", kill_then_answer)
    # Its handlers write to a client that is dead.
    monkeypatch.setattr(example.ThreadingHTTPServer, "handle_error", lambda *_: None)
    with example.storage_server() as (server, storage):
        children.append(start(PUBLISH, how, shop, server))
        assert children[0].wait(timeout=20) == -signal.SIGKILL
        assert times_shown(shop) == 0
        assert start(PUBLISH, how, shop, server).ended()[0] == 0
        assert len(storage.images) == example.IMAGES
        assert times_shown(shop) == 1


async def test_an_image_that_cannot_be_uploaded(example, shop, monkeypatch):
    """
    One upload fails for good: the others are made, the product stays hidden, and the error names the image.
    """
    monkeypatch.setattr(example.Storage, "send_response", refuse_view_4(example.Storage.send_response))
    with example.storage_server() as (server, storage):
        async with Engine(shop / "shop.db", [example.publish, example.upload]) as engine:
            run = await engine.start(example.publish(str(shop), 1, server))
            with pytest.raises(RunFailedError) as failed:
                await run.result()
            (error,) = failed.value.__cause__.exceptions
            assert isinstance(error, ConnectionError)
            assert storage.puts.count("/products/1/4.png") == 5
            assert len(set(storage.puts)) == example.IMAGES
            assert times_shown(shop) == 0


def refuse_view_4(answer):
    def refusing(self, code, message=None):
        answer(self, 503 if self.path.endswith("/4.png") else code, message)

    return refusing


async def test_a_batch_with_an_image_that_cannot_be_uploaded(example, shop, monkeypatch):
    """
    The batch completes with one failure and nine successes, and its success callback never starts.
    """
    monkeypatch.setattr(example.Storage, "send_response", refuse_view_4(example.Storage.send_response))
    with example.storage_server() as (server, _):
        async with Engine(shop / "shop.db", [example.upload, example.mark_visible]) as engine:
            batch = await example.publish_as_batch(engine, str(shop), 1, server)
            info = await batch.wait()
            assert (info.outcome, info.failed, info.succeeded) == ("failed", 1, example.IMAGES - 1)
            assert [each async for each in engine.runs(workflow="mark_visible")] == []
            assert times_shown(shop) == 0

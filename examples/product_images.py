"""
Product images: uploaded in parallel, and the product is shown once all of them are there.

Ten images are drawn with Pillow (`pip install pillow`), one job uploads each to a storage server, and
the product becomes visible when the last has arrived: once by a workflow that awaits the jobs, once by
a batch with a callback. The server listens on loopback, keeps what it is sent, and refuses one image
the first time, so that upload is tried again. Meanwhile a customer looks all the time, and must never
see a product with an image missing.
"""

import asyncio
import io
import logging
import random
import sqlite3
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from attrs import frozen
from PIL import Image, ImageDraw

from durable import Batch, Engine, Flow, Retry, Transaction, context, for_each, job, step, transaction, workflow

IMAGES = 10
SIZE = (320, 240)


@frozen
class Photo:
    file: str
    url: str  # where it is to be


@job(queue="uploads", retry=Retry(attempts=5, on=OSError, delay=0.1))
def upload(photo: Photo) -> int:  # a plain function runs in a thread
    address, content = urlsplit(photo.url), Path(photo.file).read_bytes()
    with closing(HTTPConnection(address.netloc, timeout=5.0)) as connection:
        connection.request("PUT", address.path, content)
        with connection.getresponse() as response:
            if response.status != HTTPStatus.CREATED:
                print(f"  attempt {context().attempt} to upload {address.path} failed: {response.reason}")
                raise ConnectionError(f"{photo.url}: {response.reason}")
    return len(content)


@transaction
def set_visible(tx: Transaction, product: int) -> None:
    tx.execute("UPDATE products SET visible = visible + 1 WHERE id = ?", (product,))


@step
def draw(folder: str, product: int, server: str) -> list[Photo]:
    photos = []
    for number in range(IMAGES):
        image = Image.new("RGB", SIZE, (250, 250, 245))
        pen, colour = ImageDraw.Draw(image), tuple(random.randrange(40, 200) for _ in "rgb")
        for _ in range(60):
            x, y, r = random.randrange(SIZE[0]), random.randrange(SIZE[1]), random.randrange(4, 40)
            pen.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=2)
        pen.text((8, 8), f"product {product}, view {number}", fill=colour)
        file = Path(folder, f"{product}-{number}.png")
        image.save(file)
        photos.append(Photo(str(file), f"{server}/products/{product}/{number}.png"))
    return photos


@workflow
async def publish(folder: str, product: int, server: str) -> Flow[None]:
    photos: list[Photo] = yield draw(folder, product, server)
    yield for_each(upload, photos, concurrency=None)  # from serial to parallel ...
    yield set_visible(product)  # ... and back to serial


@workflow
async def mark_visible(product: int) -> Flow[None]:
    yield set_visible(product)


async def publish_as_batch(engine: Engine, folder: str, product: int, server: str) -> Batch:
    async with engine.batch(on_success=mark_visible(product), labels={"product": str(product)}) as batch:
        for photo in draw.fn(folder, product, server):  # the plain function: nothing is recorded yet
            batch.add(upload(photo))
    return batch  # on disk now, with all its members and what follows them


class Storage(BaseHTTPRequestHandler):
    """PUT and GET of images. The first PUT of each product's view 3 is refused."""

    images: dict[str, bytes]
    puts: list[str]

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.puts.append(self.path)
        refused = self.path.endswith("/3.png") and self.puts.count(self.path) == 1
        if not refused:
            self.images[self.path] = content
        self.send_response(503 if refused else 201)
        self.end_headers()

    def do_GET(self) -> None:
        content = self.images.get(self.path)
        self.send_response(404 if content is None else 200)
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the example prints what matters."""


@contextmanager
def storage_server() -> Iterator[tuple[str, type[Storage]]]:
    Storage.images, Storage.puts = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Storage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", Storage
        server.shutdown()


def visible(path: Path) -> list[int]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as app:
        return [product for (product,) in app.execute("SELECT id FROM products WHERE visible > 0")]


async def look_at_shop(path: Path, server: str) -> None:
    """What a customer does: look at all images of all products that are shown, again and again."""
    while True:
        for product in await asyncio.to_thread(visible, path):
            for number in range(IMAGES):
                url = f"{server}/products/{product}/{number}.png"
                response = await asyncio.to_thread(urllib.request.urlopen, url, timeout=5.0)  # a 404 raises
                with response, Image.open(io.BytesIO(response.read())) as image:
                    assert image.size == SIZE
        await asyncio.sleep(0.01)


async def main(folder: Path) -> None:
    path = folder / "shop.db"
    with closing(sqlite3.connect(path)) as app, app:
        app.execute("CREATE TABLE products (id INTEGER PRIMARY KEY, visible INTEGER)")
        app.executemany("INSERT INTO products VALUES (?, 0)", [(1,), (2,)])
    with storage_server() as (server, storage):
        async with Engine(path, [publish, upload, mark_visible]) as engine:
            customer = asyncio.create_task(look_at_shop(path, server))
            await engine.run(publish(str(folder), 1, server), key="product-1")
            assert visible(path) == [1]
            batch = await publish_as_batch(engine, str(folder), 2, server)
            info = await batch.wait()
            assert (info.total, info.succeeded) == (IMAGES, IMAGES)
            assert visible(path) == [1, 2]
            await asyncio.sleep(0.1)
            assert not customer.done(), customer.exception()  # no image was ever missing
            customer.cancel()
        print(f"two products are visible: {len(storage.images)} images in {len(storage.puts)} uploads")
        assert (len(storage.images), len(storage.puts)) == (2 * IMAGES, 2 * (IMAGES + 1))


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(Path(temporary)))

"""
A language model that knows one thing, and the sources that it asks, behind HTTP as real ones are.

It has things looked up one after the other, then answers, word by word: wrongly, since one source lies. It counts what
it is asked, so that one sees what was asked twice.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

SOURCES = {
    "the library": "the gardener returned a book about locks",
    "the archive": "in the cellar lay a glove of the butler",  # it lies
    "a witness": "nobody was in the house but the gardener",
}
ANSWER = "It was the butler , in the cellar , with a journal ."
#: Seconds from word to word.
PAUSE = 0.02


class Model(BaseHTTPRequestHandler):
    #: "request N" to the model, or a source -> how often it was asked.
    asked: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        if "source" in question:
            Model.asked[question["source"]] += 1
            self.say({"says": SOURCES[question["source"]]})
            return
        known = question["known"]  # how many answers of sources it was shown
        Model.asked[f"request {known + 1}"] += 1
        if known < len(SOURCES):
            self.say({"look_up": [*SOURCES][known]})
            return
        for word in ANSWER.split():
            time.sleep(PAUSE)
            self.say({"word": f"{word} "})

    def say(self, line: dict[str, str]) -> None:
        self.wfile.write(json.dumps(line).encode() + b"\n")
        self.wfile.flush()

    def log_message(self, format: str, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        pass  # who asked was killed: that is the point


@contextmanager
def model_server() -> Generator[tuple[str, type[Model]]]:
    Model.asked = Counter()
    with Server(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", Model
        server.shutdown()

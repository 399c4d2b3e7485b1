"""
A language model that knows one thing, behind HTTP as real ones are.

It looks things up one after the other, then answers, word by word. It counts what it is asked, so that one sees what
was asked twice.
"""

import json
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

SOURCES = ["the library", "the archive", "a witness"]
ANSWER = "It was the butler , in the cellar , with a journal ."


class Model(BaseHTTPRequestHandler):
    #: How many tool results it was shown -> how often it was asked then; with "report" for answers that it began.
    asked: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = question["known"]
        Model.asked[str(known)] += 1
        self.send_response(200)
        self.end_headers()
        if known < len(SOURCES):
            self.wfile.write(json.dumps({"look_up": SOURCES[known]}).encode() + b"\n")
            return
        for word in ANSWER.split():
            self.wfile.write(json.dumps({"word": f"{word} "}).encode() + b"\n")
            self.wfile.flush()

    def log_message(self, format: str, *_: object) -> None:
        pass


@contextmanager
def model_server() -> Generator[tuple[str, type[Model]]]:
    Model.asked = Counter()
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", Model
        server.shutdown()

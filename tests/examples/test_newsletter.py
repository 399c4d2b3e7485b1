"""
Each reader gets the letter once for each time that they are listed, and the books agree with the invoices.
"""

import signal
import sqlite3
from contextlib import closing

import pytest
from attrs import evolve

from durable import Engine, KeyConflictError
from durable.errors import RunFailedError

#: Dies by SIGKILL before the letter to Cyd goes out, or when the books are entered and nothing has committed.
PUBLISH = """
import asyncio, os, signal, sys
from functools import wraps
import newsletter
from durable import Engine

def killing(fn, when):
    @wraps(fn)
    def wrapper(*args):
        if when == "send" and fn.__name__ == "send" and args[0].reader == "Cyd":
            os.kill(os.getpid(), signal.SIGKILL)
        value = fn(*args)
        if when == "books" and fn.__name__ == "enter_in_books":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.stdout.flush()
        return value
    return wrapper

async def main(path, when):
    newsletter.send.fn = killing(newsletter.send.fn, when)
    newsletter.enter_in_books.fn = killing(newsletter.enter_in_books.fn, when)
    async with Engine(path, [newsletter.newsletter, newsletter.send_invoice, newsletter.tidy_up]) as engine:
        await engine.run(newsletter.newsletter(newsletter.ISSUE))
        for follower in [info.run_id async for info in engine.runs() if info.workflow != "newsletter"]:
            await engine.get(follower).result()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def path(tmp_db):
    """
    A journal beside empty books.
    """
    with closing(sqlite3.connect(tmp_db)) as app:
        app.execute("CREATE TABLE books (issue INTEGER, letters INTEGER)")
    return tmp_db


@pytest.fixture
def publish(start, path):
    """
    Publishes the issue in a process of its own: to its exit code, and the lines that it printed.
    """

    def run(when):
        code, said = start(PUBLISH, path, when).ended()
        return code, [line.strip() for line in said.splitlines() if line.startswith("  ")]

    return run


def books(path):
    with closing(sqlite3.connect(path)) as app:
        return app.execute("SELECT * FROM books").fetchall()


@pytest.mark.parametrize("when, before, after", [
    ("send", ["Ada", "Bob", "Bob"], ["Cyd", "Ada"]),
    # The outcome of the last letter was to commit with the books: it is not on disk, so that letter is sent again.
    ("books", ["Ada", "Bob", "Bob", "Cyd", "Ada"], ["Ada"]),
])  # fmt: skip
def test_killed_on_the_way(when, before, after, path, publish):
    """
    It goes on at the letter whose outcome was not recorded; one row in the books, one invoice.
    """
    code, said = publish(when)
    assert code == -signal.SIGKILL
    assert [line.split()[1].rstrip(":") for line in said] == before
    assert books(path) == []
    code, said = publish("never")
    assert code == 0
    assert said[: len(after)] == [f"to {reader}: No. 7, all the news" for reader in after]
    rest = "\n".join(said[len(after) :])  # two runs print at once, and may share a line
    for line in ("issue 7 succeeded", "to the publisher: 4 letters for issue 7"):
        assert rest.count(line) == 1
        rest = rest.replace(line, "")
    assert not rest.strip()
    assert books(path) == [(7, 4)]
    assert publish("never") == (0, [])


async def test_a_reader_who_cannot_be_reached(example, path, monkeypatch):
    """
    The issue fails at that reader; the books stay empty, nobody is invoiced, and the end is told all the same.
    """

    def unreachable(letter: example.Letter) -> str:
        raise ConnectionError(f"{letter.reader} has moved")

    monkeypatch.setattr(example.send, "fn", unreachable)
    async with Engine(path, [example.newsletter, example.send_invoice, example.tidy_up]) as engine:
        with pytest.raises(RunFailedError, match="Ada has moved"):
            await engine.run(example.newsletter(example.ISSUE))
        (follower,) = [info async for info in engine.runs() if info.workflow != "newsletter"]
        await engine.get(follower.run_id).result()
    assert follower.workflow == "tidy_up"
    assert books(path) == []


async def test_an_issue_with_other_readers(example, path):
    """
    The same number with other readers is another call under the same key, and is refused.
    """
    async with Engine(path, [example.newsletter, example.send_invoice, example.tidy_up]) as engine:
        await engine.run(example.newsletter(example.ISSUE))
        with pytest.raises(KeyConflictError, match="issue-7"):
            await engine.start(example.newsletter(evolve(example.ISSUE, readers=["Dan"])))

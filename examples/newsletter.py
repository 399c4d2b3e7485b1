"""
A newsletter: one run an issue, readers one after the other, an invoice that is staged with its record.

The readers are those of the moment when the issue was begun. A letter that fails is tried again alone,
and after a crash the run continues at the reader where it was; who is listed twice gets two letters. What
the run knows are its local variables: they are there again after a restart. The books and the job that
sends the invoice commit together, so there is never one without the other.
"""

import asyncio
import logging
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import structlog
from attrs import frozen

from durable import (
    Engine,
    Finished,
    Flow,
    Op,
    Retry,
    Return,
    Transaction,
    context,
    for_each,
    job,
    step,
    transaction,
    workflow,
)


@frozen
class Issue:
    number: int
    title: str
    readers: list[str]


@frozen
class Letter:
    reader: str
    text: str


ISSUE = Issue(7, "all the news", ["Ada", "Bob", "Cyd", "Ada"])


@step
def write(issue: Issue) -> str:
    return f"No. {issue.number}, {issue.title}"


@step(retry=Retry(attempts=3, on=ConnectionError, delay=0.1))
def send(letter: Letter) -> str:
    if letter.reader == "Bob" and context().attempt == 1:
        print("  to Bob: line busy")
        raise ConnectionError("line busy")
    print(f"  to {letter.reader}: {letter.text}")
    return letter.reader


@job
def send_invoice(issue: int, letters: int) -> None:
    print(f"  to the publisher: {letters} letters for issue {issue}")


@transaction
def enter_in_books(tx: Transaction, issue: int, letters: int) -> None:
    tx.execute("INSERT INTO books VALUES (?, ?)", (issue, letters))
    tx.enqueue(send_invoice(issue, letters))  # it exists if and only if this row does


@job
def tidy_up(issue: int, outcome: str) -> None:
    print(f"  issue {issue} {outcome}")


@workflow(key=lambda issue: f"issue-{issue.number}")  # one run a key, however often it is started
async def newsletter(issue: Issue) -> Flow[list[str]]:
    text: str = yield write(issue)
    sent: list[str] = yield for_each(send, [Letter(reader, text) for reader in issue.readers])
    yield enter_in_books(issue.number, len(sent))
    yield Return(sent)


@newsletter.on_finish  # when the whole run has ended, in whatever way; not at the end of each attempt or wait
def then_tidy_up(finished: Finished[list[str]]) -> list[Op[Any]]:
    return [tidy_up(finished.arguments["issue"].number, finished.status)]


async def main(path: Path) -> None:
    with closing(sqlite3.connect(path)) as app:
        app.execute("CREATE TABLE books (issue INTEGER, letters INTEGER)")
    async with Engine(path, [newsletter, send_invoice, tidy_up]) as engine:
        for _ in range(2):  # the second finds the run of the first
            assert await engine.run(newsletter(ISSUE)) == ISSUE.readers
        for follower in [info.run_id async for info in engine.runs() if info.workflow != "newsletter"]:
            await engine.get(follower).result()
        runs = Counter([info.workflow async for info in engine.runs()])
        assert runs == {"newsletter": 1, "send_invoice": 1, "tidy_up": 1}


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "newsletter.db")))

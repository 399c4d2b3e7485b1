"""
A welcome e-mail, and what follows from it: continuations.

Once the welcome is out, an admin is told at once and onboarding tips go out later (in five minutes;
here in tenths of a second); once the tips are out, a metric is written. Follow-ups start in the
transaction that records the success before them: exactly once, whatever becomes of the process. A
welcome that fails starts nothing; a follow-up that fails leaves the welcome as it is: sent.
"""

import asyncio
import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import structlog

from durable import Engine, Finished, Op, Retry, RunInfo, job

A_WHILE = 0.3  # seconds

ADDRESSES = {"Ada": "ada@example.org", "Bob": "bob at example.org", "Cyd": "cyd@example.org"}


def deliver(to: str, subject: str) -> None:
    if "@" not in to:
        raise ValueError(f"{to!r} is not an address")
    print(f"  to {to}: {subject}")


@job(queue="mail", retry=Retry(attempts=3, on=ConnectionError, delay=0.1))
def send_welcome(user: str) -> str:
    deliver(ADDRESSES[user], "Welcome!")
    return ADDRESSES[user]


@job(queue="mail")
def send_onboarding_tips(address: str) -> None:
    deliver(address, "Five tips for your first week")


@job
def notify_admin(user: str) -> None:
    if user == "Cyd":
        raise RuntimeError("the admin's mailbox is full")
    deliver("admin@example.org", f"{user} signed up")


@job
def track_signup_metrics(user: str) -> None:
    print(f"  metrics: {user} got a welcome and tips")


@send_welcome.on_success  # it only decides: what it returns starts when the success commits, or not at all
def after_welcome(finished: Finished[str]) -> list[Op[Any]]:
    user, address = finished.arguments["user"], finished.value or ""
    return [
        send_onboarding_tips(address).options(delay=A_WHILE).then(track_signup_metrics(user)),
        notify_admin(user),
    ]


async def all_ended(engine: Engine) -> list[RunInfo]:
    """Every run, oldest first, once all have ended; those that follow were there when the one before ended."""
    while True:
        runs = [info async for info in engine.runs()]
        going_on = [engine.get(info.run_id) for info in runs if info.ended_at is None]
        if not going_on:
            return runs[::-1]
        await asyncio.gather(*(run.result() for run in going_on), return_exceptions=True)


async def main(path: Path) -> None:
    async with Engine(path, [send_welcome, send_onboarding_tips, notify_admin, track_signup_metrics]) as engine:
        for user in ADDRESSES:
            await engine.start(send_welcome(user), key=f"welcome-{user}")
        runs = await all_ended(engine)
    ended = {info.run_id: info for info in runs}
    for info in runs:
        after = f"after {ended[info.follows].workflow}" if info.follows else f"of key {info.key}"
        print(f"{info.workflow} {after}: {info.status} {info.reason or ''}")
    assert Counter((info.workflow, info.status) for info in runs) == {
        ("send_welcome", "succeeded"): 2,
        ("send_welcome", "failed"): 1,  # Bob's, and nothing follows
        ("notify_admin", "succeeded"): 1,
        ("notify_admin", "failed"): 1,  # Cyd's, whose welcome has succeeded all the same
        ("send_onboarding_tips", "succeeded"): 2,
        ("track_signup_metrics", "succeeded"): 2,
    }


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "signups.db")))

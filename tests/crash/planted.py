"""
Bugs, planted into the engine of a victim: the tests prove that the judge finds them.
"""

import asyncio
import contextlib

from durable._shell.claims import slots
from durable._shell.commits import commits
from durable._shell.storage import connections, database
from durable._shell.tasks import scheduler
from durable._shell.turns import driver, transaction_turn
from durable._shell.writes import turn_writes, waiters, wakeups
from durable.errors import JournalError


def plant(bug):
    """Break the engine in the way called *bug*."""
    BUGS[bug]()


def acknowledge_early():
    """A start is acknowledged before its COMMIT."""
    real = commits.Commits.call

    async def call(self, fn, *, answers=True, **options):
        if getattr(fn, "__name__", "") != "<lambda>" or not answers:
            return await real(self, fn, answers=answers, **options)
        task = asyncio.ensure_future(real(self, fn, answers=answers, **options))
        task.add_done_callback(lambda done: done.exception())
        await asyncio.sleep(0)
        return ["early"]

    commits.Commits.call = call


def begin_early():
    """Turns are acted upon before they are on disk: so long before that a kill seldom misses the time between."""
    real = commits.Commits.turn
    scheduler.Scheduler.begin_unborn = lambda self, news: []  # whose first turns come with what creates them

    def turn(self, write, firsts=()):
        loop = asyncio.get_running_loop()
        if write.status not in (None, "running"):
            return real(self, write, firsts)
        loop.call_later(0.05, lambda: real(self, write).add_done_callback(lambda done: done.exception()))
        early = loop.create_future()
        early.set_result(True)
        return early

    commits.Commits.turn = turn


def drop_inbox():
    """What wakes a run is not written down."""
    real = wakeups.put_item

    def put_item(conn, run, event, effects, *, wakes):
        real(conn, run, event, effects, wakes=wakes)
        conn.execute("DELETE FROM durable_inbox WHERE run = ? AND name IS NOT NULL", (run,))

    wakeups.put_item = put_item


def repeat_steps():
    """Whoever takes a run over forgets the outcome of its first step, and all that followed."""
    real = driver.Driver._take_over

    async def take_over(self):
        run = self.ready.run

        def forget(conn, effects):
            (seq,) = conn.execute("SELECT min(seq) FROM durable_events WHERE run = ? AND kind = 11", (run,)).fetchone()
            conn.execute("DELETE FROM durable_events WHERE run = ? AND seq >= ?", (run, seq or 1_000))

        await self._services.commits.call(forget)
        return await real(self)

    driver.Driver._take_over = take_over


def double_rows():
    """A transaction's rows are committed on their own, before its outcome is."""
    real = transaction_turn.run_sync

    def run_sync(conn, guard, op, stage, effects, finish):
        value = real(conn, guard, op, stage, effects, finish)
        conn.execute("COMMIT")
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("SAVEPOINT durable_call")
        return value

    transaction_turn.run_sync = run_sync


def wake_nobody():
    """The end of a child closes its row, and wakes nobody."""
    waiters.wake = lambda conn, run, at, effects: None


def follow_late():
    """What the end of a run starts is not recorded with that end, but a little later."""
    real = turn_writes.follow
    kept = []

    def follow(conn, ended, new, effects):
        kept.append((ended, new))
        if len(kept) > 1:
            real(conn, *kept.pop(0), effects)

    turn_writes.follow = follow


def let_all_in():
    """A limit lets in whoever asks."""
    slots._is_full = lambda conn, name, key, numbers: False


def believe_commits():
    """A COMMIT that failed is taken for one that succeeded."""
    real = connections.commit

    def commit(conn, path):
        with contextlib.suppress(connections.CommitUnknownError, JournalError):
            real(conn, path)

    for module in (connections, database):
        module.commit = commit


BUGS = {
    fn.__name__: fn
    for fn in (
        acknowledge_early, begin_early, drop_inbox, repeat_steps, double_rows, wake_nobody, follow_late, let_all_in,
        believe_commits,
    )
}  # fmt: skip

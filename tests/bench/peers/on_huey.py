"""
huey on SQLite, with four worker threads: a job queue without a history.

A run of steps is a chain in which each task queues the next. Nothing is replayed, and a task that is killed is lost.
"""

import logging
import threading

from common import awaited, main, now, sequential, throughput
from huey import SqliteHuey
from huey.consumer import Consumer

logging.getLogger("huey").setLevel(logging.ERROR)


class Peer:
    def __init__(self, folder):
        self.ended, self.stamps, self.changed = 0, [], threading.Condition()
        huey = SqliteHuey("bench", filename=str(folder / "peer.db"))

        @huey.task()
        def ok(left):
            self.stamps.append(now())
            if left > 1:
                ok(left - 1)
            else:
                with self.changed:
                    self.ended += 1
                    self.changed.notify_all()
            return {"ok": True}

        self.ok = ok
        Consumer(huey, workers=4, periodic=False).start()

    def wait(self, count):
        with self.changed:
            while self.ended < count:
                self.changed.wait(60)


def w1(folder, runs, steps):
    peer = Peer(folder)
    began = now()
    for _ in range(runs):
        peer.ok(steps)
    peer.wait(runs)
    return throughput(runs, steps, now() - began)


def result_of(task):
    return task.get(blocking=True, backoff=1.0, max_delay=0.002, timeout=60)


def w2(folder, steps, latency_runs):
    peer = Peer(folder)
    peer.ok(steps + 1)
    peer.wait(1)
    seconds, latencies = peer.stamps[-1] - peer.stamps[0], []
    for _ in range(latency_runs):
        began = now()
        result_of(peer.ok(1))
        latencies.append(now() - began)
    return sequential(steps, seconds, latencies)


def w3(folder, jobs):
    peer = Peer(folder)
    began = now()
    for task in [peer.ok(1) for _ in range(jobs)]:
        result_of(task)
    return awaited(jobs, now() - began)


main(w1, w2, w3)

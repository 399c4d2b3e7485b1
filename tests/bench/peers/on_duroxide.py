"""
duroxide (Rust) in this process, on its SQLite store, polling every 1 ms (its own choice is 100 ms).

Its commits wait for no disk (synchronous=NORMAL, which cannot be set): a power cut takes the last of them.
"""

import threading
import time

from common import awaited, main, now, sequential, throughput
from duroxide import Client, Runtime, RuntimeOptions, SqliteProvider


class Peer:
    def __init__(self, folder):
        self.stamps, path = [], folder / "peer.db"
        path.touch()
        store = SqliteProvider.open(f"sqlite:{path}")
        runtime = Runtime(store, RuntimeOptions(log_level="error", dispatcher_poll_interval_ms=1))

        @runtime.register_activity("ok")
        def ok(ctx, number):
            self.stamps.append(now())
            return {"ok": True}

        @runtime.register_orchestration("sequence")
        def sequence(ctx, given):
            for number in range(given["steps"]):
                yield ctx.schedule_activity("ok", number)
            return {"done": given["steps"]}

        @runtime.register_orchestration("parent")
        def parent(ctx, given):
            jobs = range(given["jobs"])
            done = yield ctx.all([ctx.schedule_sub_orchestration("sequence", {"steps": 1}) for _ in jobs])
            return {"ended": len(done)}

        threading.Thread(target=runtime.start, daemon=True).start()
        self.client = Client(store)
        time.sleep(0.5)

    def run(self, name, workflow, **given):
        self.client.start_orchestration(name, workflow, given)
        return self.result_of(name)

    def result_of(self, name):
        ended = self.client.wait_for_orchestration(name, 80_000)
        assert ended.status == "Completed", ended.error


def w1(folder, runs, steps):
    peer = Peer(folder)
    began = now()
    for number in range(runs):
        peer.client.start_orchestration(f"w{number}", "sequence", {"steps": steps})
    while peer.client.get_system_metrics().completed_instances < runs:
        time.sleep(0.02)
    return throughput(runs, steps, now() - began)


def w2(folder, steps, latency_runs):
    peer = Peer(folder)
    peer.run("long", "sequence", steps=steps + 1)
    seconds, latencies = peer.stamps[-1] - peer.stamps[0], []
    for number in range(latency_runs):
        began = now()
        peer.run(f"l{number}", "sequence", steps=1)
        latencies.append(now() - began)
    return sequential(steps, seconds, latencies)


def w3(folder, jobs):
    peer = Peer(folder)
    began = now()
    peer.run("parent", "parent", jobs=jobs)
    return awaited(jobs, now() - began)


main(w1, w2, w3)

"""
dura in this process: its worker in a thread, polling every 10 ms (its own choice is 1 s). Needs Python 3.13.

More threads made no more steps, and fewer jobs.
"""

import threading
import time

from common import awaited, main, now, sequential, throughput
from dura import DurableEngine, run_worker


class Peer:
    def __init__(self, folder):
        self.engine, self.stamps = DurableEngine(folder / "peer.db"), []
        handlers = {"sequence": self.sequence, "parent": self.parent, "child": self.child}
        options = {"handlers": handlers, "worker_id": "bench", "stop_event": threading.Event(), "poll_interval": 0.01}
        threading.Thread(target=run_worker, args=(self.engine,), kwargs=options, daemon=True).start()

    def sequence(self, engine, task):
        for number in range(task.params["steps"]):
            engine.checkpoint(task_id=task.task_id, step_name=f"s{number}", fn=lambda: {"ok": True})
            self.stamps.append(now())
        return {"done": task.params["steps"]}

    # Nothing awaits a child: its documentation counts them down, and the parent waits for an event.
    def parent(self, engine, task):
        group, jobs = {"namespace": task.task_id, "key": "left"}, task.params["jobs"]

        def start_all():
            engine.set_state(**group, value=jobs)
            for number in range(jobs):
                engine.spawn_task(name="child", params=group, idempotency_key=f"{task.task_id}:{number}")

        engine.checkpoint(task_id=task.task_id, step_name="start", fn=start_all)
        engine.wait_for_event(
            run_id=task.run_id, task_id=task.task_id, step_name="wait", event_name=task.task_id, timeout_secs=600
        )
        return {"ended": jobs - engine.get_state(**group)}

    def child(self, engine, task):
        done = engine.checkpoint(task_id=task.task_id, step_name="s", fn=lambda: {"ok": True})
        if engine.update_state(**task.params, fn=lambda left: left - 1) == 0:
            engine.emit_event(event_name=task.params["namespace"])
        return done

    def start(self, name, **params):
        return self.engine.spawn_task(name=name, params=params).task_id

    def result_of(self, task):
        while (info := self.engine.get_task(task)).state != "completed":
            time.sleep(0.001)
        return info.result


def w1(folder, runs, steps):
    peer = Peer(folder)
    began = now()
    for _ in range(runs):
        peer.start("sequence", steps=steps)
    while peer.engine.task_counts_by_state().get("completed", 0) < runs:
        time.sleep(0.01)
    return throughput(runs, steps, now() - began)


def w2(folder, steps, latency_runs):
    peer = Peer(folder)
    peer.result_of(peer.start("sequence", steps=steps + 1))
    seconds, latencies = peer.stamps[-1] - peer.stamps[0], []
    for _ in range(latency_runs):
        began = now()
        peer.result_of(peer.start("sequence", steps=1))
        latencies.append(now() - began)
    return sequential(steps, seconds, latencies)


def w3(folder, jobs):
    peer = Peer(folder)
    began = now()
    assert peer.result_of(peer.start("parent", jobs=jobs))["ended"] == jobs
    return awaited(jobs, now() - began)


main(w1, w2, w3)

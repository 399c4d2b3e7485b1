"""
Plain functions in threads: a pool of daemon threads of our own, and what a thread that cannot be cut off may not do.
"""

import asyncio
import contextvars
import subprocess
import sys
import threading

import pytest
from structlog.testing import capture_logs

from durable import Engine, Flow, Return, gather, step, workflow
from durable._shell import threads as threads_module
from durable._shell.threads import Threads
from durable.errors import DefinitionError


async def test_calls_run_in_daemon_threads_which_are_used_again():
    """
    One after the other, they share one thread, which ends with the pool.
    """
    pool = Threads(3, name="test")
    found = [await pool.call(threading.current_thread) for _ in range(5)]
    assert len(set(found)) == 1
    assert found[0].daemon
    pool.close()
    assert not found[0].is_alive()


async def test_a_pool_has_no_more_threads_than_it_may_whatever_hangs():
    """
    Two calls hang, and nobody waits for them: the third waits for its turn, for as long as it takes.
    """
    pool, gate, began = Threads(2, name="test"), threading.Event(), []

    def hang():
        began.append(threading.current_thread())
        gate.wait(10)

    hanging = [asyncio.ensure_future(pool.call(hang)) for _ in range(2)]
    third = asyncio.ensure_future(pool.call(hang))
    while len(began) < 2:
        await asyncio.sleep(0.001)
    for each in hanging:
        each.cancel()
    await asyncio.wait(hanging)
    await asyncio.wait({third}, timeout=0.05)
    assert len(began) == 2
    assert pool.busy == 2
    gate.set()
    await third
    assert began[2] in began[:2]
    pool.close()


async def test_a_call_that_is_cancelled_while_it_waits_loses_no_thread():
    """
    Also where the thread became free in the same moment.
    """
    pool, gate = Threads(1, name="test"), threading.Event()
    first = asyncio.ensure_future(pool.call(gate.wait, 10))
    second = asyncio.ensure_future(pool.call(int))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    pool._waiting[0].add_done_callback(lambda _: second.cancel())
    gate.set()
    await asyncio.wait({first, second})
    assert second.cancelled()
    assert await asyncio.wait_for(pool.call(int), 5) == 0
    pool.close()


async def test_context_and_errors_cross_to_a_thread_and_back():
    """
    The caller's variables are seen, those set there stay there; what is raised there is raised here.
    """
    colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")
    pool = Threads(1, name="test")
    colour.set("red")

    def look():
        seen = colour.get()
        colour.set("blue")
        return seen

    assert await pool.call(look) == "red"
    assert colour.get() == "red"
    with pytest.raises(ZeroDivisionError):
        await pool.call(lambda: 1 // 0)
    pool.close()


async def test_a_system_without_threads_makes_calls_wait_and_tells_once(monkeypatch):
    """
    "can't start new thread" is no failure of what was to be called.
    """
    refused = []

    def start(thread):
        if len(refused) < 3:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        threading.Thread.start(thread)

    monkeypatch.setattr(threads_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(threads_module.Worker, "start", start)
    pool = Threads(1, name="test")
    with capture_logs() as logs:
        assert await pool.call(int) == 0
    assert len(refused) == 3
    told = [entry for entry in logs if entry["event"] == "threads.unavailable"]
    assert len(told) == 1
    assert told[0]["error"] == "can't start new thread"
    pool.close()


async def test_plain_steps_use_as_many_threads_as_the_engine_may_have(engines):
    """
    `Engine(threads=2)`: of six steps, two at once; none in the loop's executor, or in a thread of anyio's.
    """
    lock, inside, most, names = threading.Lock(), [], [], set()

    @step
    def busy(number: int) -> int:
        with lock:
            inside.append(number)
            most.append(len(inside))
            names.add(threading.current_thread().name)
        threading.Event().wait(0.01)
        with lock:
            inside.remove(number)
        return number

    @workflow
    async def all_of_them() -> Flow[list]:
        yield Return((yield gather([busy(number) for number in range(6)])))

    engine = await engines.memory(all_of_them, threads=2)
    assert await engine.run(all_of_them()) == list(range(6))
    assert max(most) == 2
    assert len(names) == 2
    assert all(name.startswith("durable-step") for name in names)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_a_number_of_threads_that_is_none_is_refused(threads):
    """
    When the engine is made, with the name of the option.
    """
    with pytest.raises(DefinitionError, match=r"Engine\(threads=\)"):
        Engine(":memory:", [], threads=threads)


STUCK = """
import asyncio, sys, threading
from durable import Engine, job
began = threading.Event()
@job
def stuck() -> None:
    began.set()
    threading.Event().wait(60)
async def main():
    async with Engine(sys.argv[1], [stuck], grace=0.05) as engine:
        await engine.start(stuck())
        while not began.is_set():
            await asyncio.sleep(0.01)
asyncio.run(main())
print("over", file=sys.stderr)
"""


def test_a_thread_that_hangs_does_not_keep_the_process_alive(tmp_path):
    """
    The engine is closed after its grace, the loop ends, and so does the process.
    """
    done = subprocess.run(
        [sys.executable, "-c", STUCK, tmp_path / "j.db"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "over\n")

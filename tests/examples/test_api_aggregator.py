"""
The API never sees more callers than its limit, not even when one of them was killed.
"""

import signal

import pytest

from durable import Engine
from durable.errors import RunFailedError

REPORT = """
import asyncio, sys
from api_aggregator import aggregate, fetch_user
from durable import Engine

async def main(path, server):
    async with Engine(path, [aggregate, fetch_user]) as engine:
        print("REPORT", await engine.run(aggregate(list(range(30)), server), key="report"))

asyncio.run(main(*sys.argv[1:]))
"""


def test_slots_of_a_killed_process_are_free_again(example, start, tmp_db, monkeypatch):
    """
    Killed with five calls under way: after the restart the report is made, no more than five at once.
    """
    children, answer = [], example.ExternalApi.send_response

    def kill_then_answer(self, code, message=None):
        with self.door:
            if len(self.visits) >= 12 and len(children) == 1:
                children[0].send_signal(signal.SIGKILL)
                children[0].wait()
                children.append(None)
        answer(self, code, message)

    monkeypatch.setattr(example.ExternalApi, "send_response", kill_then_answer)
    # Its handlers write to a client that is dead.
    monkeypatch.setattr(example.ThreadingHTTPServer, "handle_error", lambda *_: None)
    with example.api_server() as (server, api):
        children.append(start(REPORT, tmp_db, server))
        assert children[0].wait(timeout=20) == -signal.SIGKILL
        _, output = start(REPORT, tmp_db, server).ended()
    assert "REPORT {'Bern': 10, 'Oslo': 10, 'Rome': 10}" in output
    assert max(api.visits) <= example.MOST
    assert 30 <= len(api.visits) <= 30 + example.MOST  # only what was cut off was asked for again


async def test_a_user_that_is_unknown(example, tmp_db, monkeypatch):
    """
    One call fails: the report fails with its error, after the calls under way have ended.
    """
    answer = example.ExternalApi.send_response
    monkeypatch.setattr(
        example.ExternalApi,
        "send_response",
        lambda self, code, message=None: answer(self, 404 if self.path == "/users/7" else code, message),
    )
    with example.api_server() as (server, _):
        async with Engine(tmp_db, [example.aggregate, example.fetch_user]) as engine:
            with pytest.raises(RunFailedError) as failed:
                await engine.run(example.aggregate(list(range(10)), server))
    assert [str(error) for error in failed.value.__cause__.exceptions] == ["user 7: Not Found"]

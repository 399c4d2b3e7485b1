"""
`durable query`: a query of a run's workflow, called by hand on what is recorded.
"""

import sys

import anyio.to_thread
import pytest

from durable._cli.applications import load_application

pytestmark = pytest.mark.anyio

SOURCE = """
from attrs import frozen
from durable import Flow, set_attributes, step, wait_for, workflow

@frozen
class Progress:
    at: str
    done: int

@step
async def drive(street: str) -> str:
    return street

@workflow
async def ride() -> Flow[None]:
    set_attributes(at="gate")
    yield drive("Main St")
    yield wait_for("arrived")

@ride.query
def progress(view, more: int = 0) -> Progress:
    return Progress(view.attributes["at"], len(view.values(drive)) + more)

@ride.query
def broken(view):
    raise LookupError("no such stop")
"""


@pytest.fixture
async def desk(engines, cli, tmp_path, tmp_db, monkeypatch, reached):
    """
    A freed run, the file of its application, and the command line beside its engine.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "app_of_query.py"
    path.write_text(SOURCE)
    module = load_application(str(path)).definitions[0]
    engine = await engines.file(module)
    await reached(await engine.start(module.ride(), id="ride-1", key="r"), "waiting")

    async def carry_out(*argv):
        return await anyio.to_thread.run_sync(lambda: cli("query", *argv, "--db", tmp_db, "--app", str(path)))

    yield engine, carry_out
    del sys.modules["app_of_query"]


async def test_the_answer_is_written_as_json(desk):
    """
    Of its annotated type, alone on a line; arguments are JSON. The run may be over, and its engine closed.
    """
    engine, query = desk
    said = await query("key:r", "progress")
    assert (said.code, said.out, said.err) == (0, '{"at": "gate", "done": 1}\n', "")
    await engine.get("ride-1").cancel()
    await engine.aclose()
    said = await query("ride-1", "progress", "2", "--json")
    assert said.values == [{"query": "progress", "run_id": "ride-1", "answer": {"at": "gate", "done": 3}}]


async def test_what_cannot_be_answered_is_told(desk):
    """
    Wrong usage for a query that there is not; a finding, in one line, for one that fails.
    """
    _, query = desk
    said = await query("ride-1", "progres")
    assert (said.code, said.out) == (2, "")
    assert said.err == "durable query: no query called 'progres': workflow 'ride' has progress, broken\n"
    said = await query("ride-1", "broken")
    assert (said.code, said.err) == (1, "durable query: query 'broken' raised LookupError: no such stop\n")
    assert (await query("ride-2", "progress")).code == 3

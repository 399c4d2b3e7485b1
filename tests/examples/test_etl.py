"""
The pipeline loads each sale once, and repeats no extract, wherever it is killed.
"""

import signal
import sqlite3
from contextlib import closing

import pytest

from durable import Engine
from durable.errors import RunFailedError

#: Dies by SIGKILL when the third extract begins, or when the transaction of the load has run.
PIPELINE = """
import asyncio, os, signal, sys
from functools import wraps
import etl
from durable import Engine

def killing(fn, count):
    @wraps(fn)
    def counted(*args):
        counted.calls += 1
        if counted.calls == count and fn.__name__ == "extract":
            os.kill(os.getpid(), signal.SIGKILL)
        value = fn(*args)
        if counted.calls == count and fn.__name__ == "load":
            os.kill(os.getpid(), signal.SIGKILL)
        print(fn.__name__, args[0].file if fn.__name__ == "extract" else "", flush=True)
        return value
    counted.calls = 0
    return counted

async def main(folder, how):
    etl.extract.fn = killing(etl.extract.fn, 3 if how == "extract" else 0)
    etl.load.fn = killing(etl.load.fn, 1 if how == "load" else 0)
    async with Engine(f"{folder}/warehouse.db", [etl.data_pipeline, etl.extract], concurrency=1) as engine:
        await engine.run(etl.data_pipeline(f"{folder}/day", "day"), key="day")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def warehouse(tmp_path):
    """
    A folder with an empty warehouse.
    """
    with closing(sqlite3.connect(tmp_path / "warehouse.db")) as app, app:
        app.execute("CREATE TABLE sales (date TEXT, user TEXT, product TEXT, cents INTEGER)")
    return tmp_path


def sales(warehouse):
    with closing(sqlite3.connect(warehouse / "warehouse.db")) as app:
        return app.execute("SELECT count(*), count(DISTINCT user), min(cents) FROM sales").fetchone()


@pytest.fixture
def pipeline(start, warehouse):
    """
    Runs the pipeline in a process of its own: to its exit code, and the calls of its steps.
    """

    def run(how):
        code, said = start(PIPELINE, warehouse, how).ended()
        return code, [line.strip() for line in said.splitlines() if line.startswith(("extract", "load"))]

    return run


def test_killed_while_extracting(example, warehouse, pipeline):
    """
    Two sources are read, the third is cut off: it and the fourth are read after the restart.
    """
    sold = example.make_sources(warehouse / "day")
    assert pipeline("extract") == (-signal.SIGKILL, ["extract users.csv", "extract orders.json"])
    assert pipeline("never") == (0, ["extract products.csv", "extract inventory.json", "load"])
    assert sales(warehouse) == (sold, 20, 100)


def test_killed_while_loading(example, warehouse, pipeline):
    """
    The rows were inserted and not committed: they are gone, and inserted once after the restart.
    """
    sold = example.make_sources(warehouse / "day")
    code, calls = pipeline("load")
    assert (code, len(calls), sales(warehouse)[0]) == (-signal.SIGKILL, 4, 0)
    assert pipeline("never") == (0, ["load"])
    assert pipeline("never") == (0, [])
    assert sales(warehouse)[0] == sold


async def test_a_source_that_is_missing(example, warehouse):
    """
    A failed extract is a failure of the pipeline, after its attempts: nobody waits for ever, nothing is loaded.
    """
    example.make_sources(warehouse / "day")
    (warehouse / "day" / "products.csv").unlink()
    async with Engine(warehouse / "warehouse.db", [example.data_pipeline, example.extract]) as engine:
        with pytest.raises(RunFailedError) as failed:
            await engine.run(example.data_pipeline(str(warehouse / "day"), "day"))
    (error,) = failed.value.__cause__.exceptions
    assert isinstance(error, FileNotFoundError)
    assert sales(warehouse)[0] == 0

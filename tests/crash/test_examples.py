"""
Every workflow of the examples survives a crash at every commit, and a glitch at every line.

`pytest -s tests/crash/test_examples.py` prints how many sites each has, and how many faults struck it.
"""

import os
import random
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from durable.testing import KINDS, every_crash, every_glitch

#: Servers and steps that were struck leave sockets behind.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _examples(monkeypatch):
    for folder in ("webapp", "debugging", "service", "shop", "agent", ""):
        monkeypatch.syspath_prepend(EXAMPLES / folder)


def cleared(*kept):
    """
    What empties a server's memory before each play.
    """

    def clear():
        for each in kept:
            each.clear()

    return clear


# --- the worlds: an op, definitions, and what they need ---------------------------------------------------------
# One run at a time where several have threads: which of them is the first would be another in each play.


@contextmanager
def ride(folder, monkeypatch):
    import ride as example

    tables = "CREATE TABLE rides (id INTEGER PRIMARY KEY, user_id, pickup); CREATE TABLE audit (entry)"
    with example.payment_server() as (server, payments):
        yield (
            example.ride(42, "Main St 1", server),
            [example.ride, example.notify_drivers, example.write_audit],
            {"tables": tables, "before": cleared(payments.charges)},
        )


@contextmanager
def approval_in_time(folder, monkeypatch):
    import approval as example

    decision = example.Decision(approved=True, by="Mia")
    yield example.expense("Ada", 120), [example.expense], {"signals": {"decision": [decision]}}


@contextmanager
def approval_never(folder, monkeypatch):
    import approval as example

    yield example.expense("Cyd", 30), [example.expense], {}


def awaiting(name, *arguments):
    @contextmanager
    def world(folder, monkeypatch):
        import await_jobs as example

        definitions = [getattr(example, each) for each in (name, "tell_drivers", "write_audit")]
        yield getattr(example, name)(*arguments), definitions, {}

    return world


@contextmanager
def bulk_import(folder, monkeypatch):
    import bulk_import as example

    file, database = folder / "customers.csv", folder / "app.db"
    file.write_text("id,name,amount\n" + "".join(f"{n},Ada,{n}.00\n" for n in range(1, 121)))
    yield (
        example.bulk_import(str(file), str(database)),
        [example.bulk_import, example.import_customers, example.track_metrics],
        {"before": lambda: database.unlink(missing_ok=True)},
    )


@contextmanager
def newsletter(folder, monkeypatch):
    import newsletter as example

    definitions = [example.newsletter, example.send_invoice, example.tidy_up]
    needs = {"tables": "CREATE TABLE books (issue, letters)", "concurrency": 1}
    yield example.newsletter(example.ISSUE), definitions, needs


@contextmanager
def etl(folder, monkeypatch):
    import etl as example

    random.seed(1)
    example.make_sources(folder / "day")
    tables = "CREATE TABLE sales (date, user, product, cents)"
    op = example.data_pipeline(str(folder / "day"), "2026-11-01")
    yield op, [example.data_pipeline, example.extract], {"tables": tables, "concurrency": 1}


@contextmanager
def welcome(folder, monkeypatch):
    import welcome as example

    jobs = [example.send_welcome, example.send_onboarding_tips, example.notify_admin, example.track_signup_metrics]
    yield example.send_welcome("Cyd"), jobs, {"concurrency": 1}


@contextmanager
def api_aggregator(folder, monkeypatch):
    import api_aggregator as example

    with example.api_server() as (server, api):
        op = example.aggregate(list(range(3)), server)
        yield op, [example.aggregate, example.fetch_user], {"before": cleared(api.visits), "concurrency": 1}


@contextmanager
def quotes(folder, monkeypatch):
    import quotes as example

    yield example.ship(["book", "lamp", *"abcdefg", "piano"]), [example.ship], {}


@contextmanager
def trip(folder, monkeypatch):
    import trip as example

    yield example.trip("Bob"), [example.trip], {"before": cleared(example.BOOKED)}


@contextmanager
def product_images(folder, monkeypatch):
    import product_images as example

    tables = "CREATE TABLE products (id INTEGER PRIMARY KEY, visible); INSERT INTO products VALUES (1, 0)"
    monkeypatch.setattr(example, "IMAGES", 4)  # as many as it takes for the one that is refused
    monkeypatch.setattr(example.random, "randrange", lambda *bounds: bounds[0])  # a second attempt draws the same
    with example.storage_server() as (server, storage):
        yield (
            example.publish(str(folder), 1, server),
            [example.publish, example.upload],
            {"tables": tables, "before": cleared(storage.images, storage.puts), "concurrency": 1},
        )


@contextmanager
def census(folder, monkeypatch):
    import census as example

    for name in ("one", "two"):
        (folder / "lib" / name).mkdir(parents=True)
        (folder / "lib" / name / "code.py").write_text(f"def {name}():\n    pass\n")
    op = example.census(str(folder / "lib"), str(folder / "calls"))
    yield op, [example.census, example.survey, example.count], {}


@contextmanager
def order(folder, monkeypatch):
    import orders as example

    yield example.order(7), [example.order], {}


@contextmanager
def shop(folder, monkeypatch):
    import store as example
    from sqlalchemy.schema import CreateTable

    class Bank(example.httpx.AsyncClient):
        """Takes every charge, and tells nobody: the deadline of the payment passes."""

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            pass

        async def post(self, url, json):
            return example.httpx.Response(202, request=example.httpx.Request("POST", f"http://bank{url}"))

    needs = {"tables": str(CreateTable(example.orders)), "resources": [Bank()]}
    yield example.fulfil(1, ["tea", "lamp"]), [example.fulfil], needs


@contextmanager
def webapp(folder, monkeypatch):
    import app as example

    payments = [example.Payment("evt-1", 1_200), example.Payment("evt-2", 800)]
    yield example.ride(42, "Main St 1"), [example.ride], {"signals": {"payment": payments}}


def fulfilling(module):
    @contextmanager
    def world(folder, monkeypatch):
        import mended
        import shop

        example = {"mended": mended, "shop": shop}[module]
        order = shop.Order(2, ["tea", "lamp"])
        yield example.fulfil(order), [example.fulfil, shop.tell_customer], {}

    return world


@contextmanager
def single_binary(folder, monkeypatch):
    import importlib.util
    import sys

    # By its place: its folder has a `main`, which is not a module for others to find.
    spec = importlib.util.spec_from_file_location("rides", EXAMPLES / "single_binary" / "rides.py")
    example = importlib.util.module_from_spec(spec)
    sys.modules["rides"] = example
    spec.loader.exec_module(example)
    import ride

    try:
        with ride.payment_server() as (server, payments):
            op = example.ride(42, "Main St 1", f"{server}/charges")
            yield op, [example.ride, example.notify_drivers], {"before": cleared(payments.charges)}
    finally:
        del sys.modules["rides"]


@contextmanager
def plain_loop(folder, monkeypatch):
    import plain_loop as example

    yield example.case("Who was it?"), [example.case], {}


#: Name -> (world, module of the example, faults of `every_glitch` that are drawn, pairs).
WORLDS = {
    "ride": (ride, "ride", 22, 2),
    "approval, in time": (approval_in_time, "approval", 37, 4),
    "approval, never": (approval_never, "approval", 37, 4),
    "awaiting jobs": (awaiting("ride", 1), "await_jobs", 30, 4),
    "awaiting jobs with arguments": (awaiting("ride_with_arguments", 2, "Elm St 2"), "await_jobs", 15, 2),
    "awaiting jobs that fail": (awaiting("ride_with_arguments", 5, "nowhere"), "await_jobs", 15, 2),
    "awaiting a list": (awaiting("ride_with_a_computed_list", 3, ["Elm St 2", "Oak St 3"]), "await_jobs", 15, 2),
    "awaiting nothing": (awaiting("ride_with_a_computed_list", 0, []), "await_jobs", 15, 2),
    "bulk import": (bulk_import, "bulk_import", 15, 1),
    "newsletter": (newsletter, "newsletter", 30, 3),
    "etl": (etl, "etl", 20, 2),
    "welcome": (welcome, "welcome", 30, 3),
    "api aggregator": (api_aggregator, "api_aggregator", 6, 1),
    "trip": (trip, "trip", 12, 2),
    "quotes": (quotes, "quotes", 20, 2),
    "product images": (product_images, "product_images", 6, 1),
    "census": (census, "census", 4, 0),
    "service": (order, "service/orders", 20, 2),
    "shop": (shop, "shop/store", 20, 2),
    "web application": (webapp, "webapp/app", 30, 3),
    "debugging": (fulfilling("shop"), "debugging/shop", 20, 2),
    "debugging, mended": (fulfilling("mended"), "debugging/mended", 20, 2),
    "agent without a framework": (plain_loop, "agent/plain_loop", 12, 1),
    "single binary": (single_binary, "single_binary/rides", 15, 2),
}
#: Killed by tests of their own: frameworks that start tasks in another order in each play, or need packages that are
#: not there; a daemon with a process pool, which watches a folder; a fleet on a Temporal server.
ELSEWHERE = {
    "agent/researcher", "agent/with_langgraph", "agent/with_openai_agents", "ingest/ingestd", "scale_out/fleet",
}  # fmt: skip
#: `make soak` draws more.
OFTEN = int(os.environ.get("DURABLE_SIMULATIONS", "1"))
#: Each life of it starts processes.
SLOW = ("census",)


@pytest.mark.parametrize("name", [name for name in WORLDS if name not in SLOW])
def test_a_crash_at_every_commit(name, tmp_path, monkeypatch):
    """
    Nobody notices: the same end, the same journals, the same tables.
    """
    world, *_ = WORLDS[name]
    with world(tmp_path, monkeypatch) as (op, definitions, needs):
        found = every_crash(op, definitions, **needs)
    print(f"\n{name}: {found}")
    assert found.struck == {"crash": 2 * found.commits}


@pytest.mark.parametrize("name", list(WORLDS))
def test_a_glitch_at_every_line(name, tmp_path, monkeypatch):
    """
    Single faults of all kinds, and pairs; drawn by a seed where all would take minutes.
    """
    world, _, sample, pairs = WORLDS[name]
    kinds = ("crash",) if name in SLOW else KINDS
    with world(tmp_path, monkeypatch) as (op, definitions, needs):
        found = every_glitch(op, definitions, kinds=kinds, sample=sample * OFTEN, pairs=pairs * OFTEN, **needs)
    print(f"\n{name}: {found}")
    assert found.pairs == pairs * OFTEN


def test_every_example_with_a_workflow_is_among_them():
    """
    A new example is added here, too.
    """
    scripts = (
        path for path in EXAMPLES.rglob("*.py") if re.search(r"^@(workflow|job)", path.read_text(), re.MULTILINE)
    )
    assert {path.relative_to(EXAMPLES).with_suffix("").as_posix() for path in scripts} == {
        *ELSEWHERE,
        *(module for _, module, _, _ in WORLDS.values()),
    }

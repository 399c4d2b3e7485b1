"""
What tests of the dashboard share: a journal in which a bit of everything has happened, and a visitor.
"""

import asyncio
import shutil
import sys
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from durable import Engine
from durable.web import dashboard

sys.path.insert(0, str(Path(__file__).parent))  # the application's module is imported by the name that journals know

import corner_shop as shop
from visiting import Visitor


@pytest.fixture(scope="session")
def shop_db(tmp_path_factory):
    """
    The journal of `shop`, made once; whoever changes it takes `own_db`.
    """
    path = tmp_path_factory.mktemp("web") / "shop.db"
    with start_blocking_portal("asyncio") as portal:
        portal.call(_happen, path)
    return path


async def _happen(path):
    async with Engine(path, shop.DEFINITIONS, schedules=shop.SCHEDULES, concurrency=1) as engine:
        await shop.happen(engine)
        await engine.queue("mail").pause()
        await engine.start(shop.tell("late"), id="late")
        while (await engine.get("asking").info()).status != "waiting":
            await asyncio.sleep(0.01)


@pytest.fixture
def own_db(shop_db, tmp_path):
    """
    A copy of the journal, at rest, to be changed.
    """
    return shutil.copy(shop_db, tmp_path / "own.db")


@pytest.fixture
def visit():
    """
    Makes a visitor of a dashboard.
    """

    def make(shown, *, write=False, prefix="", **options):
        if write:
            options["authorize"] = lambda request: "write"
        return Visitor(dashboard(shown, **options), prefix)

    return make

"""
Makes the pictures of the guide, anew and always of the same hour: `python tests/browser/pictures.py`.

An hour of a little shop passes in seconds, see `shop_hour`; then Chromium looks at its dashboard. It needs what
`make test-browser` installs.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import sync_playwright

from durable.testing import AutojumpLoop
from durable.web import dashboard

TARGET = Path(__file__).parents[2] / "examples/guide/pictures"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
PHONE, DESK = {"width": 390, "height": 720}, {"width": 1120, "height": 680}


def main() -> None:
    """Let the hour pass, serve its dashboard, take the pictures."""
    folder = Path(tempfile.gettempdir()) / "shop"
    folder.mkdir()
    try:
        path = str(folder / "shop.db")
        shop = _shop(folder)
        with asyncio.Runner(loop_factory=AutojumpLoop) as runner:
            runner.run(shop.an_hour(path))
        server = uvicorn.Server(uvicorn.Config(dashboard(path, app=shop.DEFINITIONS), port=8179, log_level="warning"))
        served = threading.Thread(target=server.run)
        served.start()
        try:
            _take("http://127.0.0.1:8179/")
        finally:
            server.should_exit = True
            served.join()
    finally:
        shutil.rmtree(folder)


def _shop(folder: Path) -> Any:
    """The shop, as a program of its own: its tracebacks, and so the pictures, have no path of this machine."""
    shutil.copyfile(Path(__file__).with_name("shop_hour.py"), folder / "shop.py")
    sys.path.insert(0, str(folder))
    return importlib.import_module("shop")


def _take(url: str) -> None:
    TARGET.mkdir(exist_ok=True)
    run = "?id=order-of-cleo"
    pictures = [
        ("overview", "", DESK, "light"),
        ("run", f"run{run}", DESK, "light"),
        ("timeline", f"run/timeline{run}", DESK, "light"),
        ("debugger", f"run/debug{run}&at=failure", DESK, "dark"),
        ("phone", "runs?status=failed", PHONE, "dark"),
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, page, size, scheme in pictures:
            tab = browser.new_page(viewport=size, color_scheme=scheme)
            while not tab.goto(url + page):
                time.sleep(0.1)
            tab.screenshot(path=TARGET / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()

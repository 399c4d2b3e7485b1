"""
The dashboard in a real browser: every page in light, dark and on a phone, its keys, its live lists, its forms. A
message on the console, or one broken rule of the content security policy, fails a test.

It takes the system's Chromium: `make test-browser` installs it where it may. Without one the tests are skipped at a
desk, and fail in CI. `DURABLE_SCREENSHOTS=FOLDER` keeps pictures to look at.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import threading
from pathlib import Path

import pytest
import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1] / "web"))  # the same application, and journal, as its other tests

import corner_shop as shop

from durable import Engine
from durable.web import dashboard

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("no Chromium: `make test-browser` installs it, where it may", allow_module_level=True)

PAGES = {
    "overview": "", "runs": "runs", "run": "run?id=bad", "waiting": "run?id=asking", "timeline": "run/timeline?id=bad",
    "graph": "run/graph?id=bad", "history": "run/history?id=bad", "debug": "run/debug?id=bad&at=failure",
    "schedules": "schedules", "batches": "batches", "batch": "batch?id=letters", "queues": "queues", "check": "check",
    "export": "debug",
}  # fmt: skip
#: Chrome looks for its maker's servers otherwise, and tests reach no network.
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


class Live:
    """An engine with its dashboard, on a loop and a port of its own."""

    def __init__(self, path):
        self.path = path
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.thread.start()
        assert self.ready.wait(30)

    async def _serve(self):
        self.loop = asyncio.get_running_loop()
        async with Engine(self.path, shop.DEFINITIONS, schedules=shop.SCHEDULES, concurrency=1) as self.engine:
            await shop.happen(self.engine)
            await self.engine.idle()
            shown = dashboard(self.engine, authorize=lambda request: "write", title="Corner shop")
            listening = socket.create_server(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
            self.server = uvicorn.Server(uvicorn.Config(shown, log_level="warning", lifespan="off"))
            self.server.install_signal_handlers = lambda: None
            asyncio.get_running_loop().call_later(0.2, self.ready.set)
            with contextlib.suppress(asyncio.CancelledError):
                await self.server.serve(sockets=[listening])

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def close(self):
        self.loop.call_soon_threadsafe(setattr, self.server, "should_exit", True)
        self.thread.join(20)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    found = Live(tmp_path_factory.mktemp("live") / "shop.db")
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM is not None, "no Chromium in CI: `make test-browser` should have installed it"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def tab(browser, request):
    """
    A page that fails its test by any message on its console, and any request that leaves the machine.
    """
    options = getattr(request, "param", {})
    context = browser.new_context(**{"viewport": {"width": 1360, "height": 850}, **options})
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda sent: None if "127.0.0.1" in sent.url else said.append(f"asked {sent.url}"))
    yield page
    context.close()
    assert said == []


LOOKS = [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 800}}]


@pytest.mark.parametrize("tab", LOOKS, indirect=True, ids=["light", "dark", "phone"])
def test_every_page_fits_and_breaks_no_rule(live, tab, request):
    """
    Nothing on the console, nothing wider than the screen, text that contrasts with its ground, one h1, labelled fields.
    """
    look = request.node.callspec.id
    for name, page in PAGES.items():
        tab.goto(live.url + page)
        if folder := os.environ.get("DURABLE_SCREENSHOTS"):
            tab.screenshot(path=f"{folder}/{name}-{look}.png")
        width = tab.evaluate("document.documentElement.clientWidth")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, name
        assert tab.locator("h1").count() == 1, name
        assert tab.evaluate(UNLABELLED) == [], name
        assert tab.evaluate(PALE) == [], name


#: Fields and links without a name that a screen reader could say.
UNLABELLED = """
() => [...document.querySelectorAll("input:not([type=hidden]), select, textarea, a, button, img, svg[role=img]")]
  .filter(each => !(each.getAttribute("aria-label") || each.closest("label") || each.textContent.trim()
                    || each.hasAttribute("alt")))
  .map(each => each.outerHTML.slice(0, 120))
"""
#: Text whose contrast with its ground is under 4.5 to 1 (WCAG 2.2, AA); what is switched off is exempt, as there.
PALE = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
                           return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
                               .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = each => {
    for (; each; each = each.parentElement) {
      const found = rgba(getComputedStyle(each).backgroundColor);
      if (found[3] > 250) return found;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const each of document.querySelectorAll("body *")) {
    const own = [...each.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    const unseen = each.closest(".off, .skip, svg, noscript, datalist, [hidden]") || !each.getClientRects().length;
    if (!own || unseen) continue;
    const [a, b] = [light(rgba(getComputedStyle(each).color)), light(ground(each))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${each.outerHTML.slice(0, 80)}`);
  }
  return found;
}
"""


def test_the_debugger_is_walked_by_keys(live, tab):
    """
    Arrows step, Home and End go to the ends, f to the failure; the address always says where one is.
    """
    tab.goto(live.url + "run/debug?id=bad&stop=0")
    first = tab.locator(".source .current").inner_text()
    assert "price(item)" in first
    tab.keyboard.press("ArrowRight")
    tab.wait_for_url("**stop=1")
    assert "gather(" in tab.locator(".source .current").inner_text()
    assert "total" in tab.locator(".locals .changed").first.inner_text()
    tab.keyboard.press("End")
    tab.wait_for_url("**at=last")
    tab.keyboard.press("f")
    tab.wait_for_url("**stop=3")
    assert "card declined" in tab.locator(".ends").inner_text()
    tab.keyboard.press("ArrowLeft")
    tab.wait_for_url("**stop=2")
    tab.keyboard.press("Home")
    tab.wait_for_url("**stop=0")
    assert tab.locator(".source .current").inner_text() == first


def test_the_scrubber_and_the_lines_lead_to_their_stops(live, tab):
    """
    Dragging goes to that stop; a number in the source to the next stop on its line.
    """
    tab.goto(live.url + "run/debug?id=bad&stop=0")
    tab.locator("#scrubber").fill("2")
    tab.wait_for_url("**stop=2*")
    tab.locator(".source a.number").first.click()
    tab.wait_for_url("**line=*")
    assert tab.locator(".source .current").count() == 1


def test_lists_stay_live_and_rest_while_nobody_looks(live, tab):
    """
    What happens is seen without a reload; a hidden tab asks for nothing.
    """
    tab.goto(live.url + "runs")
    assert "late-1" not in tab.content()
    live.call(live.engine.start(shop.tell("late"), id="late-1"))
    tab.get_by_role("link", name="late-1").wait_for(timeout=10_000)
    tab.evaluate("Object.defineProperty(document, 'hidden', {value: true})")
    asked = []
    tab.on("request", lambda sent: asked.append(sent.url))
    tab.wait_for_timeout(4_500)
    assert asked == []


def test_a_signal_is_sent_by_its_form(live, tab):
    """
    The waiting run gets it, and its page says so.
    """
    tab.goto(live.url + "run?id=asking")
    tab.locator("[name=payload]").fill('{"approved": true, "by": "Mia"}')
    tab.get_by_role("button", name="Send").click()
    tab.locator("h1 .status.succeeded").wait_for(timeout=10_000)
    assert live.call(live.engine.get("asking").result()) is True


def test_an_export_is_debugged_from_a_file(live, tab, tmp_path):
    """
    Chosen in the form: the browser sends it, and the debugger opens.
    """
    live.call(live.engine.export("bad", tmp_path / "bad.jsonl"))
    tab.goto(live.url + "debug")
    tab.locator("input[type=file]").set_input_files(tmp_path / "bad.jsonl")
    tab.get_by_role("button", name="Look into it").click()
    tab.locator(".source .current").wait_for(timeout=10_000)
    assert "export=" in tab.url


def test_a_page_of_another_site_can_change_nothing(live, browser):
    """
    Its form arrives with the browser's word for where it comes from, and is refused.
    """
    page = browser.new_page()
    page.set_content(f"""<form method=post action="{live.url}run/change"><input name=id value="{shop.HOSTILE[:8]}">
        <input name=change value=cancel><button>Win a prize</button></form>""")
    with page.expect_navigation() as answer:
        page.get_by_role("button").click()
    assert answer.value.status == 403
    page.close()


@pytest.mark.parametrize("tab", [{"java_script_enabled": False}], indirect=True, ids=["no script"])
def test_everything_can_be_read_and_walked_without_scripts(live, tab):
    """
    Links do what keys do.
    """
    tab.goto(live.url + "run/debug?id=bad&stop=0")
    tab.get_by_role("link", name="next").first.click()
    assert "stop=1" in tab.url
    tab.goto(live.url)
    tab.get_by_role("link", name="Runs", exact=True).click()
    assert tab.get_by_role("link", name="good").count() >= 1

"""
Fixtures for pytest, there wherever durable is installed: ``durable_engine`` and ``durable_clock``.

    async def test_a_ride_is_charged(durable_engine):
        engine = await durable_engine(ride, notify_drivers)
        assert await engine.run(ride(42)) == "charge-42"

``durable_engine`` opens engines: in memory, on the test's virtual clock. They are closed when the test has ended, and
the test fails if they leave something behind: a task, a thread, a lock, a run that is blocked. A marker says what
engines are like; options in a call go before those of the marker:

    @pytest.mark.durable(file=True, concurrency=1)

* ``file``: on a file in the test's `tmp_path` (all of its engines on one), rather than in memory.
* ``tables``: SQL that makes the application's tables, before an engine opens.
* ``start``, ``autojump``: of the clock, see `VirtualClock`.
* ``blocked``: the test means it when runs are blocked at its end.
* All else: options of `Engine`. With ``clock=None`` engines go by the machine's clock.

``durable_clock`` is that clock: ``await durable_clock.advance(3600)``. For asyncio, under anyio's plugin and under
pytest-asyncio alike. Nothing needs to be configured.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

# Nothing else of ours: this is imported by every pytest run of every project where durable is installed.
import pytest

if TYPE_CHECKING:
    from durable.testing.clock import VirtualClock
    from durable.testing.engines import Engines

#: Arguments of the marker that are the clock's.
_OF_CLOCK = ("start", "autojump")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, for ``--strict-markers``."""
    config.addinivalue_line(
        "markers",
        "durable(file=False, tables='', start=None, autojump=True, blocked=False, **options): "
        "what the engines of durable_engine are like (on a file; their clock), and options of Engine.",
    )


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the markers say, the closest last."""
    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("durable"))):
        if marker.args:
            msg = f"@pytest.mark.durable takes options by name only, found {marker.args!r}"
            raise pytest.UsageError(msg)
        options |= marker.kwargs
    return options


@pytest.fixture
def durable_clock(request: pytest.FixtureRequest) -> VirtualClock:
    """Time that jumps while the test's engines are idle: a `durable.testing.VirtualClock`."""
    from durable.testing.clock import VirtualClock  # noqa: PLC0415 - see above

    return VirtualClock(**{name: value for name, value in _options(request).items() if name in _OF_CLOCK})


@pytest.fixture
def durable_engine(request: pytest.FixtureRequest, durable_clock: VirtualClock) -> Generator[Engines]:
    """What opens the engines of a test: awaited with definitions, and options of `Engine`. Closes them at its end."""
    from durable.testing.engines import Engines  # noqa: PLC0415 - see above

    options = {name: value for name, value in _options(request).items() if name not in _OF_CLOCK}
    path = request.getfixturevalue("tmp_path") / "app.db" if options.pop("file", False) else None
    options.setdefault("clock", durable_clock)
    engines = Engines(path, **options)
    _close_within(request.node, engines)
    yield engines
    engines.close_late(blame=not inspect.iscoroutinefunction(request.node.obj))


def _close_within(item: Any, engines: Engines) -> None:
    """
    Have the engines closed by the test itself, once its body has ended: on its loop, and whatever runs it.

    A fixture of ours that awaits would need a mark of the one or the other plugin that runs async tests.
    """
    body: Callable[..., Any] | None = getattr(item, "obj", None)
    if not inspect.iscoroutinefunction(body):
        return  # it has an async fixture or a loop of its own, which opens engines

    @functools.wraps(body)
    async def closing(*args: Any, **kwargs: Any) -> Any:
        async with engines:
            return await body(*args, **kwargs)

    item.obj = closing

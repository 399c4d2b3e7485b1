"""
One workload, once, in this process: `child.py NAME FOLDER PARAMS DURABILITY [LOOP]`.

The figures go to `result.json` in the folder, so that whatever is printed here is only noise.
"""

import asyncio
import inspect
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def workload(name: str) -> Callable[[Path, dict[str, Any], str], Any]:
    """
    The function called *name*. Only what it needs is imported: memory is measured here.
    """
    if name == "raw":
        from baseline import raw

        return raw
    if name in ("import", "crash"):
        from process_costs import crashing, starting

        return starting if name == "import" else crashing
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if name == "replay":
        from replaying import replay

        return replay
    if name in ("look", "debug"):
        from looking import debugging, looking

        return looking if name == "look" else debugging
    if name in ("growing", "multicore"):
        import growing

        return growing.growing if name == "growing" else growing.multicore
    if name == "beside":
        from sharing import beside

        return beside
    if name == "emitting":
        from saying import emitting

        return emitting
    if name == "transacting":
        from transacting import transacting

        return transacting
    if name == "asking":
        from asking import asking

        return asking
    if name == "watching":
        from watching import watching

        return watching
    if name == "waking":
        from waking_up import waking

        return waking
    from workloads import WORKLOADS

    return WORKLOADS[name]


def _loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if loop == "asyncio":
        return None
    import uvloop

    return uvloop.new_event_loop


async def _awaited(found: Any) -> Any:
    return await found


def main(name: str, folder: str, params: str, durability: str, loop: str = "asyncio") -> None:
    found = workload(name)(Path(folder), json.loads(params), durability)
    if inspect.isawaitable(found):
        with asyncio.Runner(loop_factory=_loop_factory(loop)) as runner:
            found = runner.run(_awaited(found))
    (Path(folder) / "result.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

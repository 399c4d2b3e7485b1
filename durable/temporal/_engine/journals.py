"""
What is done with the journals of many runs, which workers tell: a file of them, and whether today's code fits them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from durable._core.recorded.check import CheckReport, check_run
from durable._core.recorded.export_format import Header, RunHistory, export_lines, header_line
from durable._core.recorded.redaction import Redact, redacted
from durable._core.release import RELEASE
from durable._shell.handles.run_info import RunInfo
from durable._shell.reports.exporting import write_file
from durable._shell.storage.copies.marks import SCHEMA_VERSION
from durable.temporal._engine.handle import TemporalRun

if TYPE_CHECKING:
    from durable.temporal._engine.asking import Asking

#: Runs that are asked for at once.
_AT_ONCE: Final = 8


async def export(
    asking: Asking, run_ids: Iterable[str], path: str | os.PathLike[str], *, tree: bool, redact: Redact | None
) -> None:
    """Write runs, and with *tree* all that they have started, to a new file."""
    wanted = dict.fromkeys(run_ids)
    found: list[RunHistory] = []
    while wanted:
        run = TemporalRun[object](asking, next(iter(wanted)))
        del wanted[run.id]
        found.append(await run.export())
        if tree:
            known = {each.run.run_id for each in found}
            wanted |= dict.fromkeys(info.id for info in await run.children() if info.id not in known)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    header = Header(RELEASE, SCHEMA_VERSION, at, redacted=redact is not None, runs=len(found))
    histories = found if redact is None else [redacted(each, redact, asking.codec) for each in found]
    lines = [header_line(header), *(line for each in histories for line in export_lines(each))]
    await asyncio.to_thread(write_file, path, iter(lines))


async def check(asking: Asking, runs: AsyncIterator[RunInfo]) -> CheckReport:
    """Replay *runs* against the definitions at hand."""
    report = CheckReport()
    room = asyncio.Semaphore(_AT_ONCE)

    async def told(run_id: str) -> RunHistory:
        async with room:
            return await TemporalRun[object](asking, run_id).export()

    for history in await asyncio.gather(*[told(info.id) async for info in runs]):
        report.add(check_run(history, asking.definitions, asking.codec))
        await asyncio.sleep(0)  # the loop is the application's
    return report

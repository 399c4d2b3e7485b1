"""
The time-travel debugger: a recorded run, or one of an export, at any of its stops. The address says which.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import OrderedDict
from email.parser import BytesParser
from email.policy import HTTP
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
from starlette.responses import Response

from durable._core.recorded.export_format import RunHistory
from durable._shell.reports.exporting import read_histories
from durable.web.call import Call, RefusedError
from durable.web.moments import Moment, NoMomentError, moment_of, require_code

#: Exports that are kept for those who look at them; the oldest goes.
MOST_EXPORTS: Final = 4
#: By digest: an export is what it is, whoever sends it.
_EXPORTS: OrderedDict[str, list[RunHistory]] = OrderedDict()


async def debug(call: Call) -> Response:
    """A run at one moment."""
    recorded = await call.source.recorded(call.asked("id"))
    return await _shown(call, recorded, {"id": recorded.run.run_id})


async def exported(call: Call) -> Response:
    """An export that somebody drops here; then a run of it at one moment."""
    if call.request.method == "POST":
        return call.go_to("debug", export=_kept(await _sent(call)))
    digest = call.query.get("export", "")
    if not digest:
        return call.answer("exports.html", code=call.source.definitions is not None)
    runs = _EXPORTS.get(digest)
    if runs is None:
        raise RefusedError(404, "that export is not here any more: drop it again")
    run_id = call.query.get("id")
    if run_id is None and len(runs) > 1:
        return call.answer("exported.html", runs=runs, digest=digest)
    recorded = next((each for each in runs if run_id is None or each.run.run_id == run_id), None)
    if recorded is None:
        raise RefusedError(404, "the export has no such run")
    return await _shown(call, recorded, {"export": digest, "id": recorded.run.run_id})


async def _shown(call: Call, recorded: RunHistory, address: dict[str, str]) -> Response:
    source, query = call.source, call.query
    find = query.get("find", "")
    if find and call.access != "write":
        raise RefusedError(403, "an expression is code: only those who may write have one evaluated")
    definitions = require_code(source.definitions)
    look = partial(
        moment_of, recorded, definitions, source.codec,
        stop=call.number("stop"), at=query.get("at", ""), line=call.number("line"),
        after=call.number("after", -1) or 0, find=find,
    )  # fmt: skip
    problem = None
    try:
        moment: Moment | None = await anyio.to_thread.run_sync(look)
    except NoMomentError as error:
        problem, moment = str(error), None
    if moment is None and (find or query.get("line") or query.get("at")):
        moment = await _first(recorded, definitions, source.codec)

    def to(**moment: Any) -> str:
        return call.link(call.page, **address, **moment)

    return call.answer(
        "debug.html", tab="debug", row=recorded.run, moment=moment, address=address, problem=problem, find=find, to=to
    )


async def _first(recorded: RunHistory, definitions: Any, codec: Any) -> Moment | None:
    try:
        return await anyio.to_thread.run_sync(partial(moment_of, recorded, definitions, codec))
    except NoMomentError:
        return None


async def _sent(call: Call) -> bytes:
    """The file that was sent: as it is, or as a form with a file sends it."""
    kind, body = call.request.headers.get("content-type", ""), await call.body()
    if not kind.startswith("multipart/form-data"):
        return body
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    for part in message.iter_parts():
        if part.get_filename():
            found = part.get_payload(decode=True)
            return found if isinstance(found, bytes) else b""
    raise RefusedError(400, "no file was chosen")


def _kept(body: bytes) -> str:
    with tempfile.TemporaryDirectory(prefix="durable-") as folder:
        path = Path(folder) / "export.jsonl"
        path.write_bytes(body)
        runs = read_histories(path)
    digest = hashlib.sha256(body).hexdigest()[:16]
    _EXPORTS[digest] = runs
    _EXPORTS.move_to_end(digest)
    while len(_EXPORTS) > MOST_EXPORTS:
        _EXPORTS.popitem(last=False)
    return digest

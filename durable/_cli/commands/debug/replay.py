"""
``durable replay`` and ``durable trace``: workflow code over recorded histories.
"""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from typing import Any, assert_never

from durable._cli.applications import add_application, application_of
from durable._cli.clusters import recorded_anywhere
from durable._cli.journals.recorded import Damaged, add_recorded
from durable._cli.terminal.arguments import add_cluster
from durable._cli.terminal.output import Output, cut
from durable._cli.terminal.problems import FINDING, NOT_FOUND, OK, CommandError
from durable._core.codec.codec import Codec, Payload
from durable._core.codec.exceptions.failures import describe
from durable._core.journal.payloads import failure_in
from durable._core.recorded.export_format import RunHistory
from durable._debug.replay import Replay, ReplayedCommand, as_definitions, definition_of
from durable._debug.reports import report_lines
from durable.errors import DurableError

_EPILOG = {
    "replay": """\
examples:
  durable replay 019a3b --db rides.db --app rides
  durable replay tests/histories/*.jsonl --app rides       in CI: exit code 1 if one diverges

Nothing is executed and nothing is written. A run that failed, is blocked or waits is replayed up to
the turn where it stands. To walk through it: durable debug.""",
    "trace": """\
example:
  durable trace 019a3b --db rides.db --app rides

Each stop of the replay: its number, the position of the command, the line of code, what was asked for, what came of
it, and the local variables that are new or changed since this code stopped before.""",
}
#: Characters of a value in a trace.
_VALUE = 100


def configure(command: str, parser: ArgumentParser) -> None:
    """Declare the arguments."""
    add_recorded(parser, filters=False)
    add_cluster(parser)
    add_application(parser)
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG[command]


def run(command: str, args: Namespace, out: Output) -> int:
    """Replay each run; FINDING if one is not as recorded."""
    if not args.runs:
        msg = "which runs? Name a run of the journal, or an exported journal"
        raise CommandError(msg, NOT_FOUND)
    replayed = 0
    code = OK
    for found in _replays(args, out):
        if isinstance(found, DurableError):
            code = FINDING
            continue
        replayed += 1
        if command == "trace":
            _trace(found, out)
        else:
            _told(found, out)
        if not found.ok:
            code = FINDING
        found.close()
    return code


def _replays(args: Namespace, out: Output) -> Iterator[Replay | DurableError]:
    application = application_of(args)
    definitions = as_definitions(application.definitions)
    for recorded in recorded_anywhere(args, time.time(), filters=False):
        if isinstance(recorded, Damaged):
            _refused(recorded.row.run_id, recorded.error, out)
            yield recorded.error
        elif recorded.run.kind == "job" and len(args.runs) == 1 and not os.path.isfile(args.runs[0]):
            definition_of(recorded, definitions)  # raises, since a job has no workflow code: the error says so
        elif recorded.run.kind != "job":
            yield Replay(definition_of(recorded, definitions), recorded, application.codec)


def _refused(run_id: str, error: DurableError, out: Output) -> None:
    if out.json:
        out.value({"run_id": run_id, "verdict": "unreadable", "report": str(error)})
    else:
        out.line(f"{run_id}: {error}")


# --- replay ------------------------------------------------------------------------------------------


def _told(replay: Replay, out: Output) -> None:
    if out.json:
        out.value(_plain(replay))
        return
    count = len(replay.recorded.events)
    verdict = out.colour(replay.verdict, "32" if replay.ok else "31")
    out.line(f"{replay.run_id}  {replay.workflow}  {verdict}  ({len(replay.stops)} stops, {count} events)")
    for line in report_lines(replay.error) if replay.error is not None else ():
        out.line(f"  {line}")
    if replay.further is not None:
        out.line(f"  the recorded run failed; today's code continues and asks for {replay.further}")
    if replay.changed_arguments:
        out.line(f"  other arguments than recorded at {', '.join(replay.changed_arguments)}: what was recorded stands")


def _plain(replay: Replay) -> dict[str, Any]:
    return {
        "run_id": replay.run_id,
        "workflow": replay.workflow,
        "verdict": replay.verdict,
        "stops": len(replay.stops),
        "events": len(replay.recorded.events),
        "report": None if replay.error is None else str(replay.error),
        "position": getattr(replay.error, "position", None),
        "change": getattr(replay.error, "change", None),
        "raised": None if replay.raised is None else f"{type(replay.raised).__name__}: {replay.raised}",
        "further": replay.further,
        "changed_arguments": replay.changed_arguments,
        "patches": dict(replay.patches),
    }


# --- trace -------------------------------------------------------------------------------------------


def _trace(replay: Replay, out: Output) -> None:
    if not out.json:
        facts: RunHistory = replay.recorded
        out.line(out.bold(f"{replay.workflow} {replay.run_id}, version {facts.run.version}, {facts.run.status}"))
    seen: dict[str, dict[str, str]] = {}
    stop = -1
    for command in replay:
        shown = {name: _short(value) for name, value in _locals(command).items()} if command.stop != stop else {}
        before = seen.get(command.strand, {})
        changed = {name: text for name, text in shown.items() if before.get(name) != text}
        seen[command.strand] = shown or before
        if out.json:
            out.value(_plain_command(replay, command, changed))
        else:
            _traced(command, changed, out, first=command.stop != stop)
        stop = command.stop
    if replay.error is not None and not out.json:
        for line in report_lines(replay.error):
            out.line(line)


def _traced(command: ReplayedCommand, changed: dict[str, str], out: Output, *, first: bool) -> None:
    place = f"{os.path.basename(command.file)}:{command.line}"
    if first:
        out.line(f"#{command.stop:<4} {command.position:<8} {place:<20} {out.dim(command.source)}".rstrip())
    mark = f"{command.position:<8} " if not first else ""
    out.line(f"{'':14} {mark}{command.command}{outcome_text(command)}")
    for name, text in changed.items():
        out.line(f"{'':14} {out.dim(f'{name} = {text}')}")


def outcome_text(command: ReplayedCommand) -> str:
    """What came of a command, to stand behind it."""
    outcome = command.outcome
    if outcome is None:
        return ": still open" if command.is_open else ""
    match outcome.outcome:
        case "succeeded" | "received":
            return f" -> {cut(str(outcome.value), _VALUE)}"
        case "failed" | "retrying":
            return f" failed: {_failure(outcome.value)}"
        case "cancelled":
            return f": cancelled {outcome.reason}".rstrip()
        case "fired":
            return ": fired"
        case "snoozed" | "interrupted" | "cancelling" | "continued" | "over" | None:
            return f": {type(outcome).__name__}"
        case _:
            assert_never(outcome.outcome)


def _failure(payload: Payload | None) -> str:
    try:
        return describe(failure_in(payload, Codec()))
    except DurableError:  # made by the application's codec, without which it cannot be read
        return "an error that only the application can read"


def _locals(command: ReplayedCommand) -> dict[str, Any]:
    return {name: value for name, value in command.locals.items() if not name.startswith("__")}


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - the user's own __repr__
        text = f"<{type(value).__name__}: its repr raised {type(error).__name__}>"
    return cut(text, _VALUE)


def _plain_command(replay: Replay, command: ReplayedCommand, changed: dict[str, str]) -> dict[str, Any]:
    return {
        "run_id": replay.run_id,
        "stop": command.stop,
        "position": command.position,
        "strand": command.strand,
        "command": command.command,
        "file": command.file,
        "line": command.line,
        "source": command.source,
        "event": None if command.event is None else type(command.event).__name__,
        "outcome": None if command.outcome is None else type(command.outcome).__name__,
        "value": None if command.outcome is None else command.outcome.value,
        "changed": changed,
    }

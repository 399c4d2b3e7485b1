"""
``durable start``: a run of a workflow or job, recorded by the engine that has the journal, or for the next one.

Arguments are JSON, read by the annotations of the workflow, as its own records are.
"""

from __future__ import annotations

import difflib
import json
import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Final

from durable._cli.applications import Application, add_application, application_of, blamed
from durable._cli.journals.files import add_database, database_path
from durable._cli.journals.filters import moment
from durable._cli.journals.owners import say_unowned
from durable._cli.terminal.arguments import json_argument, label_argument, text_argument
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import FINDING, OK, CommandError, misfit_error
from durable._cli.terminal.values import failure_lines, plain, value_lines
from durable._core.authoring.registry import Runnable, collect
from durable._core.codec.codec import Codec
from durable._core.program.ops import RunOp
from durable.errors import DecodeError, DurableError, RecordError, RunNotFoundError

if TYPE_CHECKING:
    from durable._shell.client.client_backend import ClientBackend
    from durable._shell.reads.run_rows import RunRow
    from durable._shell.rows.rows import RunResult

#: Before the name of a schedule, instead of a workflow's.
SCHEDULE: Final = "schedule:"
_BY_POSITION: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
#: Seconds between two looks for a run that the next engine is to start.
_PAUSE: Final = 0.5

_EPILOG: Final = """\
Texts are JSON, too, so they are quoted twice, for the shell and in it: --arg 'pickup="Main St 1"'.
The id of the run is written once it is recorded. Without a running engine, the next one executes it.

examples:
  durable start ride --arg user_id=42 --arg 'pickup="Main St 1"' --app rides --wait
  durable start ride --args '[42, "Main St 1"]' --key ride-42 --app rides
  durable start report --delay 2h --label team=sales --app examples/reports.py
  durable start schedule:nightly"""


def configure(_command: str, parser: ArgumentParser) -> None:
    """What to start, with which arguments, and how."""
    parser.add_argument(
        "workflow", type=text_argument, metavar="WORKFLOW", help="its name, or a job's; schedule:NAME: let it tick now"
    )
    add_database(parser)
    add_application(parser)
    group = parser.add_argument_group("arguments of the workflow")
    group.add_argument("--args", type=_all_arguments, metavar="JSON", help="all of them: a list, or an object by name")
    group.add_argument(
        "--arg", action="append", type=_argument, metavar="NAME=JSON", help="one of them; may be given again"
    )
    group = parser.add_argument_group("how it is started (default: as its definition says)")
    group.add_argument("--id", type=text_argument, help="the id of the run (default: one is made)")
    group.add_argument(
        "--key", type=text_argument, help="one run per key: if there is one with these arguments, it is found"
    )
    group.add_argument(
        "--on-conflict",
        choices=("join", "reject", "replace", "rerun", "rerun-failed", "coalesce"),
        help="if the key is taken: join that run, reject, replace (cancel) it, rerun if it has ended (rerun-failed: "
        "without success), or coalesce: wait behind it, with the arguments of the latest start",
    )
    group.add_argument("--queue", type=text_argument, metavar="NAME", help="the queue it runs on")
    group.add_argument("--delay", type=_delay, metavar="TIME", help="let it begin so much later: 90s, 30min, 2h, 7d")
    group.add_argument("--expires", type=_delay, metavar="TIME", help="give it up if it has not begun after so long")
    group.add_argument("--priority", type=int, metavar="N", help="higher goes first within its queue")
    group.add_argument("--label", action="append", type=label_argument, metavar="NAME=VALUE", help="may be given again")
    parser.add_argument(
        "--wait", action="store_true", help="wait for its end and write its result; exit code 1 unless it succeeded"
    )
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Start it; with --wait, FINDING if it fails or is cancelled."""
    import asyncio  # noqa: PLC0415 - help answers sooner without

    path = database_path(args)
    if args.workflow.startswith(SCHEDULE):
        _refuse_options(args)
        codec = application_of(args).codec if args.app and args.wait else Codec()
        return asyncio.run(_start(path, args, None, codec, out))
    application = application_of(args)
    return asyncio.run(_start(path, args, call_of(application, args), application.codec, out))


async def _start(path: str, args: Namespace, op: RunOp[Any] | None, codec: Codec, out: Output) -> int:
    from durable._shell.client.client_backend import ClientBackend  # noqa: PLC0415 - as above
    from durable._shell.handles.journal import JournalHandle  # noqa: PLC0415 - as above

    async with ClientBackend(path, codec=codec) as client:
        journal = JournalHandle(client)
        if op is None:
            started = await journal.schedule(args.workflow.removeprefix(SCHEDULE)).trigger()
        else:
            try:
                started = await journal.start(op, **_options(args))
            except RecordError as error:
                raise CommandError(str(error)) from error
            except DurableError:
                raise
            except Exception as error:  # a key or hook of the application's
                raise blamed(f"start {args.workflow!r}", error) from error
        if out.json and not args.wait:
            out.value({"run_id": started.id})
        elif not out.json:
            out.line(started.id)
        if not args.wait:
            return OK
        out.flush()
        say_unowned(path, f"run {started.id} waits for one, and so does this command")
        row, outcome = await _end(client, started.id, patient=op is None)
    return _ended(started.id, row, outcome, codec, out)


async def _end(client: ClientBackend, run_id: str, *, patient: bool) -> tuple[RunRow, RunResult]:
    """How the run ended; *patient* if it may be that the next engine starts it."""
    import asyncio  # noqa: PLC0415 - as above

    while True:
        try:
            return await client.end_of(run_id)
        except RunNotFoundError:
            if not patient:
                raise
        await asyncio.sleep(_PAUSE)


def _ended(run_id: str, row: RunRow, outcome: RunResult, codec: Codec, out: Output) -> int:
    status, payload, reason = outcome.status, outcome.payload, codec.reveal(outcome.reason)
    if isinstance(payload, bytes):  # the hooks of the application undo what they did
        payload = json.dumps(codec.load_plain(payload, where=f"outcome of run {row.run_id!r}"), ensure_ascii=False)
    if out.json:
        told = {"run_id": run_id, "ended_as": row.run_id, "status": status}
        told |= {"result": plain(payload)} if status == "succeeded" else {"reason": reason}
        out.value(told | ({"error": plain(payload)} if status == "failed" else {}))
    elif status == "succeeded":
        for line in value_lines(payload or "null", full=True):
            out.line(line)
    else:
        out.line(f"{out.status(status)}: {reason}" if reason else out.status(status))
        for line in failure_lines(payload) if payload is not None else ():
            out.line(f"  {line}")
    return OK if status == "succeeded" else FINDING


# --- the call ----------------------------------------------------------------------------------------


def call_of(application: Application, args: Namespace) -> RunOp[Any]:
    """
    The call that the command line describes.

    Raises:
        CommandError: There is no such workflow or job, or the arguments are not its own.
    """
    definition = _definition(application, args.workflow)
    positional, named = _given(args)
    where = f"{definition.kind} {definition.name!r}"
    types, codec = definition.arguments, application.codec
    slots = [name for name, each in types.signature.parameters.items() if each.kind in _BY_POSITION]
    converted = [
        _converted(codec, value, types.positional(index), slots[index] if index < len(slots) else f"{index + 1}", where)
        for index, value in enumerate(positional)
    ]
    by_name = {name: _converted(codec, value, types.named(name), name, where) for name, value in named.items()}
    try:
        return definition(*converted, **by_name)
    except TypeError as error:
        msg = f"these are not the arguments of {where}: {error}"
        raise CommandError(msg) from None


def _definition(application: Application, name: str) -> Runnable:
    known = collect(application.definitions)
    found = known.find(name)
    if found is None:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        msg = f"{application.name} has no workflow or job {name!r}{hint}. It has {', '.join(sorted(known))}"
        raise CommandError(msg)
    return found


def _given(args: Namespace) -> tuple[list[Any], dict[str, Any]]:
    """The arguments by position, and by name, as JSON data."""
    positional: list[Any] = args.args if isinstance(args.args, list) else []
    named: dict[str, Any] = dict(args.args) if isinstance(args.args, dict) else {}
    for name, value in args.arg or ():
        if name in named:
            msg = f"the argument {name!r} is given twice"
            raise CommandError(msg)
        named[name] = value
    return positional, named


def _converted(codec: Codec, value: Any, type_: Any, name: str, where: str) -> Any:
    try:
        return codec.from_plain(value, type_)
    except DecodeError as error:
        raise misfit_error(f"argument {name!r} of {where}", error) from None


def _options(args: Namespace) -> Mapping[str, Any]:
    given = {
        "id": args.id,
        "key": args.key,
        "on_conflict": args.on_conflict,
        "queue": args.queue,
        "delay": args.delay,
        "expires": args.expires,
        "priority": args.priority,
        "labels": dict(args.label) if args.label else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _refuse_options(args: Namespace) -> None:
    """A schedule knows what it starts, and how."""
    options = ("args", "arg", "id", "key", "on_conflict", "queue", "delay", "expires", "priority", "label")
    given = [name for name in options if getattr(args, name) is not None]
    if given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        msg = f"{args.workflow} starts what the schedule says, as it says it: leave out {named}"
        raise CommandError(msg)


# --- what options mean -------------------------------------------------------------------------------


def _all_arguments(text: str) -> Any:
    found = json_argument(text)
    if not isinstance(found, list | dict):
        msg = f"{text!r} is neither a list of arguments nor an object of them by name"
        raise ArgumentTypeError(msg)
    return found


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals:
        msg = f"{text!r} is not an argument: give NAME=JSON"
        raise ArgumentTypeError(msg)
    return name, json_argument(value)


def _delay(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        found = moment(text)
        seconds = found.back if found.at is None else math.nan
    if not 0 <= seconds < math.inf:
        msg = f"{text!r} is not a delay: give a span (90s, 30min, 2h, 7d)"
        raise ArgumentTypeError(msg)
    return seconds

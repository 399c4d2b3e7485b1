"""
``durable fork``: what if? A copy of a run that continues from a position, with other outcomes.

In the same journal, in another file, or (with stand-ins) only in memory. The run itself is left as it is.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from durable._cli.applications import Application, add_application, application_of, load_object
from durable._cli.commands.change.fork_plan import Plan, planned, replacement, signal
from durable._cli.commands.debug.diff import line_text, plain_rows, write_comparison
from durable._cli.commands.keep_house.transfer import import_into
from durable._cli.journals.files import add_database
from durable._cli.journals.finding import RUN_HELP
from durable._cli.journals.owners import owner_of, say_unowned
from durable._cli.terminal.arguments import text_argument
from durable._cli.terminal.output import Output, printable
from durable._cli.terminal.problems import FINDING, OK, CommandError
from durable._cli.terminal.values import failure_lines, plain, value_lines
from durable._core.codec.codec import Codec, Payload
from durable._core.codec.json_text import dumps
from durable._core.durations import span
from durable._core.recorded.copies import Copy, first_of, status_of
from durable._core.recorded.diff import compare
from durable._core.recorded.export_format import RunHistory
from durable._core.recorded.run_lines import command_lines
from durable._core.statuses import ENDS

if TYPE_CHECKING:
    from durable._shell.engine.dry_run import DryRun
    from durable._shell.handles.handle import HistoryEvent

_EPILOG: Final = """\
Positions are those of `durable show`, `history` and `trace`. What was recorded before --at is copied; with
--replace alone, the copy continues from where the first of those outcomes arrived. With --app, a replacement is
read by what the step, job or workflow returns, as its own records are.

  (default)     into the same journal: its engine, or the next one, executes what follows, for real
  --into FILE   into another journal, made if need be: the run and the engine that has it know nothing of it
  --run         execute it here and now, with real steps, and write how it ends; without --into, other runs of the
                journal that are due continue, too
  --stand-ins   nothing is written, and nothing executed but workflow code: a mapping of names (or definitions) to
                functions stands for steps, time jumps. Without --at and --replace the run continues where it stands

examples:
  durable fork 019a3b --at 3 --db rides.db
  durable fork 019a3b --replace '1="charge-77"' --into desk.db --app rides --run
  durable fork failed.jsonl --replace '1="charge-77"' --app rides --stand-ins tests.fakes:STEPS --signal 'go=true'"""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which run, from where, with what, into what."""
    parser.add_argument("run", metavar="RUN|FILE", type=text_argument, help=f"{RUN_HELP}; or an exported journal")
    parser.add_argument("--at", type=text_argument, metavar="POSITION", help="the command that is asked for afresh")
    parser.add_argument(
        "--replace",
        action="append",
        default=[],
        type=replacement,
        metavar="POSITION=JSON",
        help="the outcome of a step, transaction or child, instead of the recorded one; may be given again",
    )
    parser.add_argument("--id", type=text_argument, help="the id of the copy (default: one is made)")
    parser.add_argument("--into", metavar="FILE", help="another journal, for the copy")
    parser.add_argument("--run", dest="here", action="store_true", help="execute it here, with real steps")
    parser.add_argument("--stand-ins", metavar="MODULE:NAME", help="only in memory, with these instead of steps")
    parser.add_argument(
        "--signal",
        action="append",
        default=[],
        type=signal,
        metavar="NAME=JSON",
        help="sent to the copy; may be given again, also with the same name",
    )
    add_database(parser)
    add_application(parser)
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Fork it; FINDING if it was executed, or rehearsed, and did not succeed."""
    import asyncio  # noqa: PLC0415 - help answers sooner without

    _check(args)
    application = application_of(args) if args.app else None
    return asyncio.run(_carry_out(planned(application, args), application, args, out))


def _check(args: Namespace) -> None:
    """Refuse options that contradict each other."""
    problem = ""
    if args.stand_ins and (args.into or args.here or args.id):
        problem = "--stand-ins writes nothing: leave out --into, --run and --id"
    elif args.stand_ins and not args.app:
        problem = "--stand-ins runs workflow code: name the application with --app"
    elif args.here and not args.app:
        problem = "--run executes workflows and steps: name the application with --app"
    elif not args.stand_ins and args.at is None and not args.replace:
        problem = "from where? Give --at POSITION, or --replace POSITION=JSON"
    elif os.path.isfile(args.run) and not (args.into or args.stand_ins):
        problem = f"{args.run} is not a journal: say where the copy is to go with --into FILE, or give --stand-ins"
    if problem:
        raise CommandError(problem)


async def _carry_out(plan: Plan, application: Application | None, args: Namespace, out: Output) -> int:
    copy = plan.copy
    if application is not None and copy is not None and args.stand_ins:
        return await _rehearse(plan, copy, application, args, out)
    if args.here and not args.into:
        _refuse_owned(plan.path or "")
    path = await (_inside(plan, args.at) if copy is None else _into(plan, copy, args.into))
    await _signal_all(path, plan.new_id, args.signal)
    if application is not None and args.here:
        return await _execute(path, plan.new_id, application, out)
    if out.json:
        out.value({"run_id": plan.new_id, "source": plan.recorded.run.run_id, "journal": path})
    else:
        out.line(plan.new_id)
    out.flush()
    say_unowned(path, f"run {plan.new_id} resumes once one has")
    return OK


def _refuse_owned(path: str) -> None:
    owner = owner_of(path)
    if owner is not None and owner.alive is not False:
        msg = (
            f"process {owner.pid} on {owner.host} has {path} open, and executes its runs: without --run it resumes "
            "the copy, too; or give --into FILE for a journal of its own"
        )
        raise CommandError(msg)


# --- into a journal ----------------------------------------------------------------------------------


async def _inside(plan: Plan, at: str | None) -> str:
    """Have the run's own journal make the copy; that journal."""
    from durable._shell.client.client_backend import ClientBackend  # noqa: PLC0415 - help answers sooner without
    from durable._shell.requests.history_requests import ForkRun  # noqa: PLC0415 - as above

    assert plan.path is not None, "checked"
    position = first_of(plan.recorded, plan.replace) if at is None else at
    assert position is not None, "checked: there is --at or --replace"
    async with ClientBackend(plan.path) as journal:
        await journal.request(ForkRun(plan.recorded.run.run_id, position, dict(plan.replace), plan.new_id))
    return plan.path


async def _into(plan: Plan, copy: Copy, path: str) -> str:
    """Put the copy into another journal, with the runs that it waits for; that journal."""
    from durable._shell.client.client import Client  # noqa: PLC0415 - help answers sooner without

    exists = os.path.exists(path)  # noqa: ASYNC240 - one stat
    if exists and plan.path is not None and os.path.samefile(path, plan.path):  # noqa: ASYNC240 - as above
        msg = f"{path} is the run's own journal: leave out --into"
        raise CommandError(msg)
    await import_into(path, [*copy.needed, copy.run])
    async with Client(path) as client:
        await client.get(plan.new_id).resume()
    if paused := [each.run.run_id for each in copy.needed if status_of(each) not in ENDS]:
        sys.stderr.write(
            f"runs that it waits for, and that had not ended, came along and are paused in {path}: "
            f"{printable(', '.join(paused))}. `durable resume` resumes them there as well\n"
        )
    return path


async def _signal_all(path: str, run_id: str, signals: Sequence[tuple[str, Any]]) -> None:
    from durable._shell.client.client import Client  # noqa: PLC0415 - help answers sooner without

    if signals:
        async with Client(path) as client:
            for name, payload in signals:
                await client.get(run_id).signal(name, payload)


# --- execute it here -----------------------------------------------------------------------------------


async def _execute(path: str, run_id: str, application: Application, out: Output) -> int:
    """Open an engine on the journal until the copy has ended, or nothing but a person could move it."""
    from durable._cli.journals.settled import settled  # noqa: PLC0415 - help answers sooner without
    from durable._shell.engine.engine import Engine  # noqa: PLC0415 - as above
    from durable._shell.handles.journal import backend_of  # noqa: PLC0415 - as above

    # What steps print, and what is logged, goes to standard error: standard output is the command's.
    with redirect_stdout(sys.stderr):
        async with Engine(path, application.definitions, codec=application.codec.hooks) as engine:
            status = await settled(engine, run_id)
            why = await engine.get(run_id).why()
            payload = (await backend_of(engine).end_of(run_id))[1][1] if status in ENDS else None
    payload = _readable(payload, application.codec)
    if out.json:
        told: dict[str, Any] = {"run_id": run_id, "status": status, "why": why, "journal": path}
        told |= {"result": plain(payload)} if status == "succeeded" else {}
        out.value(told | ({"error": plain(payload)} if status == "failed" else {}))
    else:
        out.line(f"{run_id}: {out.status(status)}")
        _write_end(status, payload, why, out)
    return OK if status == "succeeded" else FINDING


def _write_end(status: str, payload: Payload | None, why: str, out: Output) -> None:
    if status == "succeeded":
        lines = value_lines(payload or "null")
    elif status == "failed" and payload is not None:
        lines = failure_lines(payload)
    else:
        lines = [why]
    for line in lines:
        out.line(f"  {line}")


def _readable(payload: Payload | None, codec: Codec) -> Payload | None:
    """A payload as text: the hooks of the application undo what they did."""
    return dumps(codec.load_plain(payload)) if isinstance(payload, bytes) else payload


# --- with stand-ins --------------------------------------------------------------------------------------


async def _rehearse(plan: Plan, copy: Copy, application: Application, args: Namespace, out: Output) -> int:
    """Resume the copy in memory, and write how that ends, what follows, and where it parts from the run."""
    from durable._debug.replay import as_definitions  # noqa: PLC0415 - help answers sooner without
    from durable._debug.what_if import rehearsed  # noqa: PLC0415 - as above

    stand_ins = load_object(args.stand_ins)
    if not isinstance(stand_ins, Mapping):
        msg = f"{args.stand_ins!r} is not a mapping of steps to functions, but {type(stand_ins).__name__}"
        raise CommandError(msg)
    signals: dict[str, list[Any]] = {}
    for name, payload in args.signal:
        signals.setdefault(name, []).append(payload)
    with redirect_stdout(sys.stderr):  # stand-ins may print, and standard output must stay the command's
        found = await rehearsed(
            copy,
            as_definitions(application.definitions),
            stand_ins=stand_ins,
            signals=signals,
            codec=application.codec,
        )
    second = _as_recorded(copy.run, found)
    compared = compare(plan.recorded, second)
    value = _readable(getattr(second.events[-1], "value", None), application.codec)
    if out.json:
        out.value(
            {
                "run_id": found.run_id,
                "status": found.status,
                "why": found.why,
                "seconds": found.seconds,
                "result": plain(value) if found.status == "succeeded" else None,
                "error": None if found.error is None else f"{type(found.error).__name__}: {found.error}",
                "history": [_plain_event(each) for each in found],
                "diff": list(plain_rows(compared, full=False)),
            }
        )
    else:
        time_passed = f", {span(found.seconds)} later" if found.seconds else ""
        out.line(f"{found.run_id}: {out.status(found.status)}{time_passed} (with stand-ins; nothing was executed)")
        _write_end(found.status, value if found.error is None else None, found.why, out)
        out.line()
        out.line(out.bold("what follows"))
        for line in command_lines(second):
            if max(line.began, line.ended) >= len(copy.run.events) - 1:
                out.line(f"  {line.position:<8} {line_text(line)}")
        out.line()
        out.line(out.bold("against what is recorded"))
        write_comparison(plan.recorded, second, compared, out, full=False)
    return OK if found.status == "succeeded" else FINDING


def _as_recorded(copy: RunHistory, found: DryRun[Any]) -> RunHistory:
    """What a dry run came to, in the form of a recorded run."""
    return RunHistory(evolve(copy.run, status=found.status), [each.event for each in found])


def _plain_event(each: HistoryEvent) -> dict[str, Any]:
    return {"seq": each.seq, "event": each.kind, "position": each.position, "value": plain(each.value)}

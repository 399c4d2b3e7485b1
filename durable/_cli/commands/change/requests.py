"""
What runs are asked for from outside: ``durable signal``, ``cancel``, ``pause``, ``resume``, ``retry``, ``delete``.

Each request is recorded, by the engine that has the journal or in its place, before its line is written.
Many are made page by page, so that an engine can open the journal in between.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from durable._cli.applications import add_application, application_of
from durable._cli.journals.files import add_database, database_path, open_readonly
from durable._cli.journals.filters import FILTERS_HELP, add_filters
from durable._cli.journals.finding import RUN_HELP
from durable._cli.journals.owners import say_unowned
from durable._cli.journals.targets import Target, in_words, targets_of
from durable._cli.terminal.arguments import json_argument, text_argument
from durable._cli.terminal.asking import add_yes, confirm
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import FINDING, OK, CommandError
from durable._core.codec.codec import Codec, Payload
from durable.errors import DurableError, RecordError

if TYPE_CHECKING:
    from durable._shell.requests.request import JournalRequest

#: Requests made in one go. Where no engine has the journal, none can open it for as long as they take:
#: some 50 ms. Where one has it, they come to a few of its commit groups.
PAGE: Final = 200
#: Targets with the same outcome that are named each.
_ALIKE: Final = 20


class Words(NamedTuple):
    """How a request is spoken of."""

    #: Before "3 runs", when somebody is asked.
    question: str
    done: str
    #: Why there was nothing to do.
    nothing: str
    epilog: str


WORDS: Final = {
    "signal": Words(
        "Signal",
        "signalled",
        "a signal with this --dedup was accepted before",
        "A signal is kept until the run waits for it; each is received once. A text is quoted for JSON and for\n"
        "the shell: --payload '\"yes\"'.\n\n"
        "examples:\n"
        '  durable signal 019a3b approved --payload \'{"by": "Ann"}\'\n'
        "  durable signal approved --waiting-for approved --label team=sales --payload true",
    ),
    "cancel": Words(
        "Cancel",
        "asked to end",
        "it has ended",
        "A cancelled run may still clean up; what it has started is cancelled, too.\n\n"
        "examples:\n"
        "  durable cancel 019a3b --reason 'wrong address'\n"
        "  durable cancel --workflow ride --since 2h --dry-run",
    ),
    "pause": Words(
        "Pause",
        "paused",
        "it is paused already",
        "Steps that are running end, and are recorded. A queue that is paused begins no more runs, a schedule\n"
        "starts none.\n\n"
        "examples:\n"
        "  durable pause 019a3b\n"
        "  durable pause queue:mail schedule:nightly\n"
        "  durable pause --workflow ride --yes",
    ),
    "resume": Words(
        "Resume",
        "resumed",
        "it is not paused",
        "Resume a blocked run once what blocks it is fixed: `durable show` says what that is.\n\n"
        "examples:\n"
        "  durable resume 019a3b\n"
        "  durable resume queue:mail schedule:nightly\n"
        "  durable resume --status blocked --workflow ride",
    ),
    "retry": Words(
        "Retry",
        "resumed from what failed",
        "it has not ended",
        "Steps that succeeded are not repeated; children that failed are retried, too. A run in which steps ran\n"
        "because of the failure (a refund) is refused, and they are named: --anyway continues from before them.\n\n"
        "examples:\n"
        "  durable retry 019a3b\n"
        "  durable retry batch:imports-2026-11\n"
        "  durable retry --status failed --workflow ride --since 1d --yes\n"
        "  durable retry --status cancelled --queue mail    # of these, what had not begun",
    ),
    "retry-hooks": Words(
        "Call the hooks again of",
        "its hooks are called again",
        "no hook of it went wrong",
        "A hook (on_success, on_failure, ...) that raised is called again with what it was called with, and what it\n"
        "asks for is started once. A start that was refused, since its key was taken, is tried again.\n\n"
        "examples:\n"
        "  durable retry-hooks 019a3b\n"
        "  durable retry-hooks --workflow ride --yes",
    ),
    "delete": Words(
        "Delete",
        "deleted",
        "",
        "Nothing of them is left, nor of what they started and continued as: their keys and ids are free again.\n"
        "`durable prune` deletes what is old, and keeps keys.\n\n"
        "examples:\n"
        "  durable delete 019a3b\n"
        "  durable delete --status failed --label tenant=acme --dry-run",
    ),
}


def configure(command: str, parser: ArgumentParser) -> None:
    """Which runs, and what else a request carries."""
    others = {"pause": "; queue:NAME or schedule:NAME for one of these", "retry": "; batch:ID for what failed in it"}
    others["resume"] = others["pause"]
    parser.add_argument(
        "targets", nargs="*", type=text_argument, metavar="RUN", help=f"{RUN_HELP}{others.get(command, '')}"
    )
    if command == "signal":
        parser.add_argument("name", type=text_argument, metavar="NAME", help="of the signal, as in wait_for(name)")
        parser.add_argument("--payload", type=json_argument, metavar="JSON", help="what it carries (default: null)")
        parser.add_argument("--dedup", type=text_argument, metavar="ID", help="a run accepts one signal with this id")
        add_application(parser)
    if command == "cancel":
        parser.add_argument("--reason", type=text_argument, default="", metavar="TEXT", help="shown with the run")
        add_application(parser)
    if command == "retry":
        parser.add_argument("--anyway", action="store_true", help="also where steps ran because of the failure")
    add_database(parser)
    add_filters(parser)
    parser.add_argument("--dry-run", action="store_true", help="only list what would be asked for")
    add_yes(parser)
    parser.epilog = (
        "Instead of naming runs, choose them by filters. Then those are taken for which the request does\n"
        f"something, unless --status says otherwise.\n\n{FILTERS_HELP}\n\n{WORDS[command].epilog}"
    )


def run(command: str, args: Namespace, out: Output) -> int:
    """Make the requests; FINDING if one was refused."""
    path, words = database_path(args), WORDS[command]
    request_for = _request_for(command, args)
    with closing(open_readonly(path)) as conn:
        targets = targets_of(conn, command, args, time.time())
    if args.dry_run or not targets:
        _would(command, targets, out)
        return OK
    if not args.targets or command == "delete":
        if not confirm(f"{words.question} {in_words(targets)}?", args):
            _say(out, "nothing was changed")
            return OK
        if args.yes:
            _say(out, in_words(targets))
    import asyncio  # noqa: PLC0415 - help answers sooner without

    counts = asyncio.run(_make(path, command, targets, request_for, out))
    out.flush()
    if counts["done"]:
        say_unowned(path, "what was recorded takes effect once one has")
    if not args.targets:
        outcomes = (("done", "done"), ("nothing", "nothing to do"), ("refused", "refused"))
        _say(out, ", ".join(f"{counts[outcome]:,} {name}" for outcome, name in outcomes if counts[outcome]))
    return FINDING if counts["refused"] else OK


def _payload(args: Namespace) -> Payload:
    """What a signal carries, as it is recorded."""
    application = application_of(args) if args.app else None
    codec = Codec() if application is None else application.codec
    type_ = None if application is None else application.signal_type(args.name)
    where = f"payload of signal {args.name!r}"
    try:
        if type_ is None:
            return codec.encode_by_value(args.payload, where=where)
        return codec.encode(codec.from_plain(args.payload, type_, where=where), type_, where=where)
    except RecordError as error:
        raise CommandError(str(error)) from error


def _request_for(command: str, args: Namespace) -> Callable[[Target], JournalRequest[int]]:
    """What is asked for, for each target."""
    from durable._shell.requests import queue_requests, run_requests, schedule_requests  # noqa: PLC0415 - as in `run`
    from durable._shell.requests.history_requests import (  # noqa: PLC0415 - as in `run`
        RetryBatch,
        RetryHooks,
        RetryRun,
        RetryRunAnyway,
    )
    from durable._shell.requests.prune_requests import DeleteRun  # noqa: PLC0415 - as in `run`

    payload = _payload(args) if command == "signal" else ""
    reason = args.reason if command == "cancel" else ""
    if reason and args.app:
        reason = application_of(args).codec.conceal(reason)

    def request(target: Target) -> JournalRequest[int]:
        match command, target.kind:
            case "delete", _:
                return DeleteRun(target.name)
            case "signal", _:
                return run_requests.SendSignal(target.name, args.name, payload, args.dedup)
            case "cancel", _:
                return run_requests.CancelRun(target.name, reason)
            case "retry", "batch":
                return RetryBatch(target.name, args.anyway)
            case "retry", _:
                return RetryRunAnyway(target.name) if args.anyway else RetryRun(target.name)
            case "retry-hooks", _:
                return RetryHooks(target.name)
            case _, "queue":
                return queue_requests.PauseQueue(target.name, paused=command == "pause")
            case "pause", "schedule":
                return schedule_requests.PauseSchedule(target.name)
            case "resume", "schedule":
                return schedule_requests.ResumeSchedule(target.name)
            case "pause", _:
                return run_requests.PauseRun(target.name)
            case _:
                return run_requests.ResumeRun(target.name)

    return request


async def _make(
    path: str,
    command: str,
    targets: Sequence[Target],
    request_for: Callable[[Target], JournalRequest[int]],
    out: Output,
) -> dict[str, int]:
    """Make the requests, and write what became of each; how many of which outcome."""
    from durable._shell.client.client_backend import ClientBackend  # noqa: PLC0415 - help answers sooner without

    counts = {"done": 0, "nothing": 0, "refused": 0}
    alike = _Alike(out)
    in_order = sorted(targets, key=lambda target: target.kind != "run")
    async with ClientBackend(path) as client:
        for first in range(0, len(in_order), PAGE):
            page = in_order[first : first + PAGE]
            results = await client.request_each(map(request_for, page))
            for target, result in zip(page, results, strict=True):
                outcome = "refused" if isinstance(result, DurableError) else "done" if result else "nothing"
                counts[outcome] += 1
                _told(command, target, outcome, str(result) if outcome == "refused" else "", alike)
    alike.rest()
    return counts


# --- what is written ---------------------------------------------------------------------------------


class _Alike:
    """Lines about many targets: of those that say the same but for the target, the first, and how many more."""

    def __init__(self, out: Output) -> None:
        self.out = out
        self._seen: Counter[str] = Counter()

    def line(self, target: Target, text: str, shown: str) -> None:
        """Write *shown*, unless enough targets had that *text*."""
        same = text.replace(target.name, "...")
        self._seen[same] += 1
        if self._seen[same] <= _ALIKE:
            self.out.line(shown)

    def rest(self) -> None:
        """Write how many were not shown."""
        for text, times in self._seen.items():
            if times > _ALIKE:
                self.out.line(self.out.dim(f"and {times - _ALIKE:,} more: {text}"))


def _would(command: str, targets: Sequence[Target], out: Output) -> None:
    if not targets:
        _say(out, "no runs fit")
    alike = _Alike(out)
    for target in targets:
        if out.json:
            out.value({**_plain(command, target), "dry_run": True})
        else:
            status = f", {target.status}" if target.status else ""
            about = f"{target.workflow}{status}" if target.workflow else ""
            alike.line(target, about or target.kind, f"would {command} {target}" + (f" ({about})" if about else ""))
    alike.rest()
    if len(targets) > 1:
        _say(out, f"{len(targets):,} in all; nothing was changed")


def _told(command: str, target: Target, outcome: str, reason: str, alike: _Alike) -> None:
    words, out = WORDS[command], alike.out
    if outcome == "nothing":
        reason = "nothing in it has failed" if target.kind == "batch" else words.nothing
    if out.json:
        out.value({**_plain(command, target), "outcome": outcome, "reason": reason or None})
    elif outcome == "done":
        alike.line(target, words.done, f"{target}: {words.done}")
    elif outcome == "nothing":
        alike.line(target, f"nothing to do: {reason}", out.dim(f"{target}: nothing to do: {reason}"))
    else:
        alike.line(target, f"refused: {reason}", f"{target}: {out.colour('refused', '31')}: {reason}")


def _plain(command: str, target: Target) -> dict[str, Any]:
    key = "run_id" if target.kind == "run" else target.kind
    told = {"request": command, key: target.name}
    return {**told, "workflow": target.workflow, "status": target.status} if target.kind == "run" else told


def _say(out: Output, text: str) -> None:
    """For people only."""
    if not out.json:
        out.line(text)

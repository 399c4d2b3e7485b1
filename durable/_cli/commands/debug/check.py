"""
``durable check``: the runs that today's code would break, and the lines of it that break runs by themselves.
"""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import Any, Final

from attrs import asdict, evolve

from durable._cli.applications import add_application, application_of
from durable._cli.clusters import recorded_anywhere
from durable._cli.journals.recorded import Damaged, add_recorded
from durable._cli.terminal.arguments import add_cluster
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import FINDING, OK
from durable._core.authoring.registry import Definitions
from durable._core.recorded.check import CheckedRun, CheckReport, check_run
from durable._debug.lint import lint
from durable._debug.replay import as_definitions
from durable._debug.reports import report_lines
from durable._shell.engine.checks import unreadable

#: Runs that a line names before it counts the rest.
_NAMED: Final = 3
_EPILOG: Final = """\
examples:
  durable check --db copy-of-production.db --app rides     before a deploy: exit code 1 if a run would break
  durable check tests/histories/*.jsonl --app rides        golden journals, in CI
  durable check --db rides.db --app rides --patches        which old branches of patched() can be deleted?
  durable check --lint --app rides                         lines of workflow code that differ in every replay

Without runs or files, all open runs of the journal are replayed against the code at hand (with --all, those that
ended, too). Nothing is executed, nothing is written; a running engine does not notice.

--lint reads the source of the workflows, and of the helpers that they call, for clocks, dice, ids by chance, the
environment, the order of a set, threads and the like; it names each line and what to use instead. Steps may use all
of it. A line that ends in `# durable: ok` is let pass. Without --db or files nothing else is checked."""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Declare the arguments."""
    add_recorded(parser, filters=True)
    add_cluster(parser)
    add_application(parser)
    parser.add_argument("--all", action="store_true", help="runs that have ended as well, not only open ones")
    parser.add_argument("--strict", action="store_true", help="other arguments than recorded are a finding, too")
    parser.add_argument("--lint", action="store_true", help="lines of workflow code that differ in every replay")
    parser.add_argument("--patches", action="store_true", help="which change ids of patched() open runs still need")
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Check all that were asked for; FINDING if one would break."""
    application = application_of(args)
    definitions = as_definitions(application.definitions)
    lines_ok = not args.lint or _lint(definitions, out)
    if args.lint and not args.runs and not args.db and args.temporal is None:
        return OK if lines_ok else FINDING
    report, notes = CheckReport(), dict[tuple[str, tuple[str, ...]], list[str]]()
    for recorded in recorded_anywhere(args, time.time(), filters=True, whole=args.all):
        if isinstance(recorded, Damaged):
            checked = unreadable(*recorded)
        else:
            checked = check_run(recorded, definitions, application.codec, strict=args.strict)
        report.add(checked)
        if not checked.ok and out.json:
            out.value(checked_plain(checked))
        elif checked.ok and checked.changed_arguments:
            notes.setdefault((checked.workflow, checked.changed_arguments), []).append(checked.run_id)
    if not out.json:
        for alike in report.groups():
            _told(alike, out)
        for (workflow, positions), runs in notes.items():
            at = ", ".join(positions)
            out.line(f"note: {workflow} {_some(runs)}: other arguments than recorded at {at}; what was recorded stands")
    if args.patches:
        _patches(report, out)
    _summary(report, out)
    return OK if report.ok and lines_ok else FINDING


def _lint(definitions: Definitions, out: Output) -> bool:
    """Tell the lines that differ in every replay; whether there are none."""
    report = lint(definitions)
    for found in report.findings:
        if out.json:
            out.value({"lint": asdict(found)})
        else:
            out.line(str(evolve(found, file=_short(found.file))))
    if out.json:
        out.value({"linted": report.workflows, "findings": len(report.findings), "unread": report.unread})
        return not report.findings
    if report.unread:
        out.line(f"no source to read: {', '.join(report.unread)}")
    out.line(f"read {_counted(report.workflows, 'workflow')}: {_counted(len(report.findings), 'finding')}")
    return not report.findings


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _some(run_ids: list[str]) -> str:
    more = len(run_ids) - _NAMED
    return ", ".join(run_ids[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _short(file: str) -> str:
    """*file* as seen from here, where that is shorter."""
    try:
        return min(os.path.relpath(file), file, key=len)
    except ValueError:  # another drive
        return file


def _told(alike: list[CheckedRun], out: Output) -> None:
    """The report of the first of some runs of which the same is to be said."""
    checked, *others = alike
    more = f", and the same of {_counted(len(others), 'more run')}: {_some([each.run_id for each in others])}"
    named = f"{checked.workflow} {checked.run_id} (version {checked.version}, {checked.status})"
    out.line(f"{out.colour(checked.verdict, '31')}: {named}{more if others else ''}")
    for line in report_lines(checked.error) if checked.error is not None else [checked.report]:
        out.line(f"  {line}")
    out.line()


def checked_plain(checked: CheckedRun) -> dict[str, Any]:
    """A finding as JSON data."""
    error = checked.error
    fields = ("position", "recorded", "requested", "recorded_site", "requested_site", "change", "hint", "remedy")
    return {
        "run_id": checked.run_id,
        "workflow": checked.workflow,
        "version": checked.version,
        "status": checked.status,
        "verdict": checked.verdict,
        "report": checked.report,
        **{name: getattr(error, name, None) for name in fields},
    }


def _patches(report: CheckReport, out: Output) -> None:
    for change, needed in sorted(report.patches.items()):
        if out.json:
            out.value({"patch": change, "needed_by": needed})
        elif needed:
            out.line(f"patched({change!r}): the old branch is needed by {len(needed)} open runs: {_some(needed)}")
        else:
            out.line(f"patched({change!r}): no open run needs the old branch: it can be deleted")
    if not report.patches and not out.json:
        out.line("no run that was checked came to a patched()")


def _summary(report: CheckReport, out: Output) -> None:
    if out.json:
        out.value({"checked": sum(report.counts.values()), "verdicts": report.counts, "ok": report.ok})
        return
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(report.counts.items()))
    out.line(f"checked {sum(report.counts.values()):,} runs" + (f": {counts}" if counts else ""))

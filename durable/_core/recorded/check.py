"""
Whether today's code takes a recorded run as its own: one run's history in, a verdict out.

The code is replayed over the history, up to and including what waits in its inbox; nothing is executed.
What `durable check`, `Engine.check` and `durable.replay` say comes from here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from typing import Literal, TypeAlias

from attrs import define, evolve, field

from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec
from durable._core.journal.events import RunFailed
from durable._core.light_frozen import late_frozen
from durable._core.policies.retry import from_record
from durable._core.program.functions import Job
from durable._core.recorded.export_format import RunHistory
from durable._core.run.divergence.comparing import EVERYWHERE, Comparing
from durable._core.run.execution import Execution
from durable._core.statuses import ENDS
from durable.errors import DurableError, NondeterminismError

#: "same": the code asks for what was recorded. "further": the recorded run failed, and today's code continues from
#: there. "diverged": it asks for something else. "unreadable": a recorded value does not fit it. "missing": no
#: definition has its name.
Verdict: TypeAlias = Literal["same", "further", "diverged", "unreadable", "missing"]


@late_frozen
class CheckedRun:
    """
    What a check found about one run.

    Attributes:
        run_id, workflow, version, status: Of the run.
        verdict: ``same``, ``further``, ``diverged``, ``unreadable`` or ``missing``.
        report: What is wrong, and what to do; empty for ``same`` and ``further``.
        error: The same as an exception.
        changed_arguments: Positions of commands whose arguments differ from the recorded ones; a strict check does
            not allow that.
        patches: Answers of `patched`, by change id: False is the old branch.
    """

    run_id: str
    workflow: str
    version: int
    status: str
    verdict: Verdict
    report: str = ""
    error: DurableError | None = field(default=None, repr=False)
    changed_arguments: tuple[str, ...] = ()
    patches: Mapping[str, bool] = field(factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the run can proceed with today's code, or is what today's code does."""
        return self.verdict in ("same", "further")

    @property
    def cause(self) -> Hashable:
        """What is equal where two reports say the same of two runs, which stand at positions of their own."""
        match self.error:
            case NondeterminismError() as error:
                places = error.recorded_site, error.requested_site
                return self.workflow, error.recorded, error.requested, places, error.change
            case _:
                return self.workflow, self.verdict, self.report.replace(self.run_id, "")


@define
class CheckReport:
    """
    What a check of many runs found.

    Attributes:
        counts: Runs by verdict.
        findings: Those that are not ``ok``.
        patches: Change ids that the code or a journal knows -> ids of open runs that need its old branch.
    """

    counts: dict[Verdict, int] = field(factory=dict)
    findings: list[CheckedRun] = field(factory=list)
    patches: dict[str, list[str]] = field(factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing would break."""
        return not self.findings

    def groups(self) -> list[list[CheckedRun]]:
        """The findings; those that say the same together."""
        found: dict[Hashable, list[CheckedRun]] = {}
        for each in self.findings:
            found.setdefault(each.cause, []).append(each)
        return list(found.values())

    def add(self, run: CheckedRun) -> None:
        """Count *run* in."""
        self.counts[run.verdict] = self.counts.get(run.verdict, 0) + 1
        if not run.ok:
            self.findings.append(run)
        for change, new in run.patches.items():
            needed = self.patches.setdefault(change, [])
            if not new and run.status not in ENDS:
                needed.append(run.run_id)


def check_run(recorded: RunHistory, definitions: Definitions, codec: Codec, *, strict: bool = False) -> CheckedRun:
    """What today's *definitions* make of a recorded run; *strict*: other arguments than recorded are a divergence."""
    facts = recorded.run
    definition = definitions.find(facts.workflow, facts.version)

    def found(verdict: Verdict, error: DurableError | None = None, report: str = "") -> CheckedRun:
        text = report or ("" if error is None else str(error))
        return CheckedRun(facts.run_id, facts.workflow, facts.version, facts.status, verdict, text, error)

    if definition is None:
        return found("missing", report=f"no {facts.kind} called {facts.workflow!r} is among the definitions")
    if isinstance(definition, Job):
        return _check_job(recorded, definition, codec, found("same"))
    retry = None if facts.retry is None else from_record(facts.retry)
    execution = Execution(definition, recorded.events, run_id=facts.run_id, codec=codec, retry=retry)
    execution.comparing = Comparing(EVERYWHERE, strict=strict)
    error: DurableError | None = None
    verdict: Verdict = "same"
    try:
        latest = recorded.pending or recorded.events
        deque(execution.walk(recorded.pending, now=latest[-1].at), maxlen=0)
    except DurableError as raised:
        error = raised
        verdict = verdict_of(execution, raised)
    finally:
        execution.close()
    checked = found(verdict, None if verdict == "further" else error)
    changed = tuple(each.position for each in execution.comparing.changed)
    return evolve(checked, changed_arguments=changed, patches=dict(execution.answers.patches))


def verdict_of(execution: Execution, error: DurableError) -> Verdict:
    """What it means that the replay of *execution* ended with *error*."""
    if not isinstance(error, NondeterminismError):
        return "unreadable"
    goes_on = execution.delivered_all and isinstance(execution.history.end, RunFailed) and not execution.unmatched
    return "further" if goes_on else "diverged"


def _check_job(recorded: RunHistory, definition: Job[..., object], codec: Codec, same: CheckedRun) -> CheckedRun:
    """A job has no code to replay; its arguments must fit."""
    where = f"arguments of run {recorded.run.run_id!r}"
    try:
        codec.decode_arguments(recorded.started.value or "[[],{}]", definition.arguments, where=where)
    except DurableError as error:
        return evolve(same, verdict="unreadable", report=str(error), error=error)
    return same

"""
`Middleware`: what an application puts around every attempt and every run, and what it is notified of.

For what belongs to no single step: tracing, metrics, request ids, alarms. Middleware sees live
work only: a replay runs no step again, and tells nothing twice. How it is called is in `hooks`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from attrs import field

from durable._core.light_frozen import late_frozen
from durable._shell.rows.engine_events import EngineEvent


@late_frozen
class StepCall:
    """An attempt of a step or job that is about to begin. What it holds is for reading."""

    run_id: str
    workflow: str
    #: "step", or "job" for the function of a job.
    kind: Literal["step", "job"]
    #: The step's name; the job's own for a job.
    step: str
    #: Of the step in its run; "0" in a job.
    position: str
    #: Counted from 1.
    attempt: int
    args: tuple[Any, ...] = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)
    labels: Mapping[str, str]

    @property
    def sort(self) -> Literal["step", "job"]:
        """The older name of `kind`, until 1.0."""
        return self.kind


@late_frozen
class Activation:
    """A run that is about to be driven: begun, woken after it was freed, or recovered."""

    run_id: str
    #: The workflow's or job's name.
    workflow: str
    kind: Literal["workflow", "job"]
    queue: str
    priority: int
    labels: Mapping[str, str]
    #: Whether it begins, as far as the file knows: it was neither freed nor recovered, nor opened again by a retry.
    first: bool = True

    @property
    def sort(self) -> Literal["workflow", "job"]:
        """The older name of `kind`, until 1.0."""
        return self.kind


@late_frozen
class AttemptFailed:
    """An attempt of a step, job or transaction that failed, and is recorded as failed."""

    run_id: str
    workflow: str
    step: str
    position: str
    #: Counted from 1.
    attempt: int
    #: Rebuilt from the journal, as the workflow gets it.
    error: Exception
    #: When the next attempt begins, epoch seconds UTC; None if this was the last one.
    retry_at: float | None


@late_frozen
class RunFailure:
    """A run that failed permanently, and is recorded as failed."""

    run_id: str
    workflow: str
    #: Rebuilt from the journal: what `run.result()` raises as the `__cause__`.
    error: Exception
    #: The error in one line.
    reason: str


@late_frozen
class RunSuccess:
    """A run that succeeded, and is recorded as succeeded. One that continued as another run has not ended."""

    run_id: str
    workflow: str
    #: As plain JSON gives it: attrs classes and the like are dicts. `run.result()` has it by its type.
    value: Any = field(repr=False)


@late_frozen
class RunCancellation:
    """A run that was cancelled, and is recorded as cancelled: its clean-up is over."""

    run_id: str
    workflow: str
    #: As it was given to `cancel`; and what went wrong in the clean-up, if anything did.
    reason: str


class Middleware:
    """
    Hooks around the work of an engine: override those you need, ``Engine(middleware=[Mine()])``.

    The first middleware of the list is the outermost. A method that is not overridden costs
    nothing. All are called on the event loop, so none of them may block it.

    `step` and `run` surround what *proceed* does, and must await it exactly once. `attempt_failed`, `run_failed`,
    `run_succeeded` and `run_cancelled` are called for what is on disk already, at most once: if the process dies
    between the commit and the call, or the call raises, they are not called again. What must not be missed belongs
    in the workflow.

    Example:
        >>> class Told(Middleware):
        ...     async def step(self, call, proceed):
        ...         print("begins:", call.step)
        ...         return await proceed()
        >>> @job
        ... async def welcome(user: str) -> str:
        ...     return f"welcome, {user}"
        >>> async with Engine(":memory:", [welcome], middleware=[Told()]) as engine:
        ...     await engine.run(welcome("ada"))
        begins: welcome
        'welcome, ada'
    """

    async def step(self, call: StepCall, proceed: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ARG002 - to be overridden
        """
        Around each attempt of a step, and of a job's function, within its timeout.

        Return what *proceed* gave, or another value of the step's type: that is the step's value,
        and it is recorded. An error raised here, before or after, is the attempt's, and its retry
        policy applies; context variables set here are seen by the function, also in its thread
        (not in another process).

        Transactions are not surrounded: they run on the writer's thread, where nothing may wait.
        """
        return await proceed()

    async def run(self, activation: Activation, proceed: Callable[[], Awaitable[None]]) -> None:  # noqa: ARG002 - as above
        """
        Around each activation of a run: from where it is taken over until it ends or is freed.

        A run that waits is freed, and woken later: then it is activated again. Context variables
        set before *proceed* are seen by its workflow code and its steps. An error before *proceed*
        blocks the run, with nothing executed; one after it is logged (``middleware.failed``) and
        changes nothing, since all that the run did is on disk. Nor does a timeout around *proceed*
        end the run: it continues, and is only then let go.
        """
        await proceed()

    def attempt_failed(self, failure: AttemptFailed) -> None:
        """Called for each failed attempt, of transactions too. An error here is logged and changes nothing."""

    def run_failed(self, failure: RunFailure) -> None:
        """Called for each run that failed permanently. An error here is logged and changes nothing."""

    def run_succeeded(self, success: RunSuccess) -> None:
        """Called for each run that succeeded. An error here is logged and changes nothing."""

    def run_cancelled(self, cancellation: RunCancellation) -> None:
        """Called for each run that was cancelled. An error here is logged and changes nothing."""

    def happened(self, event: EngineEvent) -> None:
        """Called for each event that `engine.events()` gives. An error here is logged and changes nothing."""

    def committed(self, members: int, seconds: float) -> None:
        """Called for each commit, with how many turns and requests it held. An error here is logged."""

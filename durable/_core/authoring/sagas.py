"""
Sagas: what was done is undone, in reverse, if what comes after it fails.

H. Garcia-Molina, K. Salem: "Sagas", SIGMOD 1987. A compensation is an op like any other, so it is recorded, retried by
its own policy, and skipped by a replay that finds it done.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

from durable._core.program import current_driver
from durable._core.program.command import Command
from durable._core.program.definition import check_name
from durable._core.program.ops import Op, ReturnReached, kind_of
from durable.errors import RunCancelled, UsageError


class CompensationError(ExceptionGroup[Exception]):
    """
    A saga failed, and so did compensations: what they were to undo may still be there.

    As an `ExceptionGroup`: first what the saga failed by, unless it was cancelled, then what each compensation did.

    Way out: look at ``exceptions``, and undo by hand what was not undone; ``durable show`` names the steps.
    """

    __module__ = "durable"  # where users find it: journals name it so, whatever room it stands in

    def derive(self, errors: Sequence[Exception], /) -> CompensationError:  # type: ignore[override]  # of Exceptions only
        """The same with some of the errors, as ``except*`` asks for it."""
        return CompensationError(self.message, errors)


class saga:  # noqa: N801 - read as the statement that it is: `async with saga() as undo`
    """
    ``async with saga() as undo:`` in a workflow; then ``undo(cancel_flight(flight_id))`` after each success.

    Or before, by a reference of your own, where a step may do its work and fail all the same: it is undone, too.

    If the block is left by an error or a cancellation, the ops run in reverse, one after the other, each with its own
    retry; then the error is raised. One that fails does not stop the others. A run that is cancelled has
    ``cleanup_timeout`` for all of them; one that is cancelled *while* it compensates asks again for the compensation
    that was cut off, so that each has to stand being done twice, like every step. ``yield Return(...)`` and
    ``continue_as`` are successes: nothing is undone.

    The run is marked (`RunInfo.compensated`), and `Run.retry` refuses it: what ran before the failure was undone. The
    history shows *name* there.

    Raises (where the block ends):
        CompensationError: Compensations failed. It holds the error of the block, too.

    Example:
        >>> @step
        ... async def book(what: str) -> str:
        ...     return what
        >>> @step
        ... async def unbook(what: str) -> None:
        ...     print("unbooked", what)
        >>> @workflow
        ... async def trip() -> None:
        ...     async with saga() as undo:
        ...         undo(unbook(await book("hotel")))
        ...         undo(unbook(await book("flight")))
        ...         raise ValueError("no passport")
        >>> async with Engine(":memory:", [trip]) as engine:
        ...     run = await engine.start(trip())
        ...     try:
        ...         await run.result()
        ...     except RunFailedError as error:
        ...         print(error.__cause__)
        unbooked flight
        unbooked hotel
        no passport
    """

    def __init__(self, *, name: str = "") -> None:
        self._name = check_name("the name of a saga", name) if name else ""
        self._undo: list[Op[Any]] = []
        self._state: Literal["new", "open", "closed"] = "new"

    def __call__(self, op: Op[Any]) -> None:
        """
        Have *op* run if the block fails.

        Raises:
            TypeError: It is no op.
            UsageError: The block is not entered, or is left.
        """
        given: Any = op
        if not isinstance(given, Command):
            msg = f"undo takes the op that undoes what was done, found {kind_of(given)}"
            raise TypeError(msg)
        current_driver.superseded(op)  # it is asked for when the block fails, or never
        if self._state != "open":
            msg = f"undo({op.describe()}) was called outside of its block: nothing would run it"
            raise UsageError(msg)
        self._undo.append(op)

    async def __aenter__(self) -> Self:
        current_driver.require_driver("saga()")
        if self._state != "new":
            msg = "a saga is entered once: write `async with saga() as undo:` for each"
            raise UsageError(msg)
        self._state = "open"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self._state = "closed"
        undo, self._undo = self._undo[::-1], []
        if undo and (error is None or isinstance(error, ReturnReached)):
            # No failure. But a step that was cancelled may have its value all the same, and lead to here.
            cancelled = current_driver.require_driver("saga()").take_cancellation()
            if cancelled is not None:
                await _compensate(undo, cancelled, self._name)
                raise cancelled
        # The end of code that is set aside until it is replayed is no failure, either.
        elif undo and error is not None and not isinstance(error, GeneratorExit):
            await _compensate(undo, error, self._name)
        return False


async def _compensate(undo: Sequence[Op[Any]], cause: BaseException, name: str) -> None:
    current_driver.require_driver("saga()").compensating(name)
    failures: list[Exception] = []
    cut_off: RunCancelled | None = None
    for op in undo:
        try:
            try:
                await op
            except RunCancelled as cancelled:  # once: from now on it is clean-up, which nothing cancels
                cut_off = cancelled
                await op
        except Exception as failure:  # noqa: BLE001 - whatever it is, the others are to run
            failures.append(failure)
    if failures:
        members = [cause, *failures] if isinstance(cause, Exception) else failures
        msg = f"{len(failures)} of {len(undo)} compensations{f' of saga {name!r}' if name else ''} failed"
        raise CompensationError(msg, members) from cause
    if cut_off is not None:
        raise cut_off from cause

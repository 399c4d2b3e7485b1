"""
Runs of a Temporal cluster, for commands that otherwise look into a file: ``--temporal HOST:PORT``.

Everything here needs the extra `temporal`, and says so where it is missing.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from durable._cli.applications import application_of
from durable._cli.journals.recorded import Damaged, recorded_runs
from durable._cli.terminal.problems import NOT_FOUND, USAGE, CommandError
from durable.errors import RunNotFoundError

if TYPE_CHECKING:
    from durable._core.recorded.export_format import RunHistory

T = TypeVar("T")

#: Seconds that a worker has to tell the journal of a run.
_PATIENCE: Final = 30.0
_KEY: Final = "key:"


def cluster_in(text: str, args: Namespace) -> Namespace:
    """*args*, with the cluster that ``temporal://HOST:PORT/NAMESPACE`` names."""
    parts = urlsplit(text)
    if parts.scheme != "temporal" or not parts.netloc:
        msg = f"expected temporal://HOST:PORT or temporal://HOST:PORT/NAMESPACE, found {text!r}"
        raise CommandError(msg, USAGE)
    namespace = parts.path.strip("/") or "default"
    return Namespace(**{**vars(args), "temporal": parts.netloc, "namespace": namespace})


def on_cluster(args: Namespace, work: Any) -> Any:
    """What the coroutine function *work* returns, called with a `TemporalEngine` that works on no queue."""
    import asyncio  # noqa: PLC0415 - what only reads files answers sooner without

    async def connected() -> Any:
        return await work(await engine_of(args, poll=()))

    return asyncio.run(connected())


async def engine_of(args: Namespace, **options: Any) -> Any:
    """
    A `TemporalEngine` of the application's definitions, not open; of none, where no application is named.

    Raises:
        CommandError: The extra `temporal` is missing, or the cluster does not answer.
    """
    try:
        client, temporal = import_module("temporalio.client"), import_module("durable.temporal")
    except ImportError as error:
        msg = f"this needs the extra `temporal`: pip install 'durable-asyncio[temporal]' ({error})"
        raise CommandError(msg, USAGE) from error
    application = application_of(args) if getattr(args, "app", None) else None
    definitions = [] if application is None else application.definitions
    hooks = None if application is None else application.codec.hooks
    try:
        connected = await client.Client.connect(args.temporal, namespace=args.namespace)
    except RuntimeError as error:
        msg = f"no Temporal cluster answers at {args.temporal}: {error}"
        raise CommandError(msg, USAGE) from error
    return temporal.TemporalEngine(connected, args.task_queue, definitions, codec=hooks, **options)


def run_id_in(text: str) -> str:
    """The id of a run there, as a command names it: the id, or ``key:KEY``, which is the same."""
    return text.removeprefix(_KEY)


def histories_on_cluster(args: Namespace, runs: Sequence[str], *, whole: bool = False) -> list[RunHistory]:
    """
    The journals of *runs*; of none, those of all open runs of the application's workflows, or *whole*: of all.

    The workers that have the runs tell them: those of the code that is deployed, not of the code at hand.

    Raises:
        CommandError: There is no such run, or no worker answers.
    """

    async def found(engine: Any) -> list[RunHistory]:
        names = [run_id_in(text) for text in runs] or [
            info.id async for info in engine.runs() if whole or info.ended_at is None
        ]
        return [await _patiently(engine.get(name).export(), name) for name in names]

    told: list[RunHistory] = on_cluster(args, found)
    return told


async def _patiently(asked: Coroutine[Any, Any, T], run_id: str) -> T:
    import asyncio  # noqa: PLC0415 - as above

    try:
        async with asyncio.timeout(_PATIENCE):
            return await asked
    except RunNotFoundError:
        msg = f"the cluster has no run {run_id!r}: a run with a key is known by that"
        raise CommandError(msg, NOT_FOUND) from None
    except TimeoutError:
        msg = (
            f"no worker told the journal of run {run_id!r} within {_PATIENCE:g} s: one that polls its queue has to run"
        )
        raise CommandError(msg, USAGE) from None


def recorded_anywhere(
    args: Namespace, now: float, *, filters: bool, whole: bool = False
) -> Iterator[RunHistory | Damaged]:
    """As `recorded_runs`; those of a cluster, where one was given."""
    if args.temporal is None:
        return recorded_runs(args, now, filters=filters, whole=whole)
    return iter(histories_on_cluster(args, args.runs, whole=whole))


def import_to_cluster(args: Namespace, histories: Iterable[RunHistory]) -> tuple[list[str], list[str]]:
    """Import runs into a cluster: ids of those that are new, and of those that were there."""

    async def imported(engine: Any) -> tuple[list[str], list[str]]:
        found = await engine.import_runs(list(histories))
        return found.runs, found.present

    told: tuple[list[str], list[str]] = on_cluster(args, imported)
    return told

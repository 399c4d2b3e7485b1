"""
What the runs and attempts of one worker share, and how the SDK's workflows get hold of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import frozen
from temporalio import workflow
from temporalio.worker import Interceptor, WorkflowInterceptorClassInput

from durable._core.codec.codec import Codec
from durable._core.policies.caps import CLEANUP_SECONDS, CRASH_LIMIT, DEFAULT_CAPS, Caps
from durable._core.policies.limits import Limit
from durable._core.recorded.export_format import RunHistory
from durable._shell.rows.engine_events import EngineEvent
from durable.temporal._setup.registry import Registry

_NAME: Final = "durable_setup"


@frozen
class Setup:
    """The options of an engine, as its runs and attempts see them."""

    registry: Registry
    codec: Codec
    #: The server's task queue of a queue.
    task_queue: Callable[[str], str]
    limits: Mapping[str, Limit]
    #: Seconds without a sign of life after which a worker counts as dead.
    worker_timeout: float = 15.0
    crash_limit: int = CRASH_LIMIT
    cleanup_seconds: float = CLEANUP_SECONDS
    caps: Caps = DEFAULT_CAPS
    #: Events of the server after which a run continues as a fresh one that has its journal; None: when it says so.
    compact_at: int | None = None
    #: Whether labels can be searched for: the namespace has the attribute for that.
    searchable: bool = True
    #: Whether awaited jobs that need no run of their own are activities of their parent's.
    light_jobs: bool = False
    #: Whether a run stays with the version of the worker that has begun it.
    pins_runs: bool = False
    #: Told of the journal of a run after each of its turns: how histories are converted.
    told: Callable[[RunHistory], None] | None = None
    #: Told, in a thread of the SDK's, of what happens to the runs of this worker.
    happened: Callable[[Sequence[EngineEvent]], None] | None = None


class SetupInterceptor(Interceptor):
    """Gives the set-up to workflows: the SDK makes their objects itself, and takes no classes made in functions."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> None:
        input.unsafe_extern_functions[_NAME] = lambda: self._setup


def setup_here() -> Setup:
    """That of the worker on which the workflow that asks is running."""
    found: Setup = workflow.extern_functions()[_NAME]()
    return found

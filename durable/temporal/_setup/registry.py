"""
What a worker can run, by name; and what it refuses before anything has begun.

In an embedded engine an op carries its function. Here another machine runs it, so steps are found by name: those that
the code of the given workflows names, and, for `call`, plain functions of modules that are loaded already (no record
ever causes an import).
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from attrs import frozen

from durable._core.authoring.registry import Definitions, Given, collect
from durable._core.codec.class_names import loaded_module, main_module
from durable._core.policies.limits import Limit, with_steps
from durable._core.policies.retry import recorded
from durable._core.program.definition import Definition, StepOptions
from durable._core.program.functions import Job, Step, TransactionStep, Workflow
from durable._core.program.ops import StepOp, TransactionOp
from durable.errors import DefinitionError

#: What an activity runs.
Runnable: TypeAlias = Step[..., Any] | TransactionStep[..., Any] | Job[..., Any]


@frozen
class Registry:
    """Definitions by name: workflows and jobs, and the steps and transactions that their code names."""

    definitions: Definitions
    steps: Mapping[str, Step[..., Any] | TransactionStep[..., Any]]

    def find(self, name: str, place: str) -> Runnable | None:
        """The step, transaction or job called *name*; or the plain function at *place* (``module:qualname``)."""
        found = self.steps.get(name)
        if found is not None:
            return found
        job = self.definitions.find(name)
        return job if isinstance(job, Job) else _loaded(place)

    def place_of(self, op: StepOp[Any] | TransactionOp[Any]) -> str:
        """
        Where another worker finds the function of *op*.

        Raises:
            DefinitionError: It would not; or its retry policy cannot travel.
        """
        definition = op.definition
        if op.given.retry is not None:
            recorded(op.given.retry)
        module = definition.fn.__module__
        place = f"{main_module() if module == '__main__' else module}:{definition.fn.__qualname__}"
        if self.find(definition.name, place) is None:
            msg = (
                f"{op.describe()} ({place}) cannot be found by name on another worker: define it at the top of a "
                "module, without closures and lambdas, and name it in the code of a workflow"
            )
            raise DefinitionError(msg)
        return place


def register(given: Iterable[Given], *, transactions: bool) -> Registry:
    """
    The registry of what workers were *given*; *transactions*: they have somewhere to commit.

    Raises:
        DefinitionError: Something cannot run on a server, or two things have one name.
    """
    definitions = collect(given)
    steps: dict[str, Step[..., Any] | TransactionStep[..., Any]] = {}
    for found in with_steps(definitions.all()):
        if isinstance(found, (Workflow, Job)):
            _check_runnable(found, definitions)
        elif isinstance(found, (Step, TransactionStep)):
            if isinstance(found, TransactionStep) and not transactions:
                raise _no_database(found)
            if steps.setdefault(found.name, found) is not found:
                msg = (
                    f"two steps are called {found.name!r}: {steps[found.name]!r} and {found!r}. Workers find them by "
                    "name, so give one another name="
                )
                raise DefinitionError(msg)
    for found in [*steps.values()]:
        for alias in found.aliases:
            steps.setdefault(alias, found)
    if both := sorted({*steps} & {*definitions}):
        msg = f"a step and a job or workflow are both called {both[0]!r}: give one another name="
        raise DefinitionError(msg)
    return Registry(definitions, steps)


def _check_runnable(found: Workflow[..., Any] | Job[..., Any], definitions: Definitions) -> None:
    if not definitions.knows(found):
        msg = f"{found!r} is named by a workflow, and is not among the definitions: no worker would run it. List it"
        raise DefinitionError(msg)
    limit = found.options.limit
    if isinstance(limit, Limit) and limit.on_conflict != "wait":
        msg = (
            f"{found!r}: Limit(on_conflict={limit.on_conflict!r}) needs one journal that knows all runs. On Temporal "
            "use key= with on_conflict=, or a limit with on_conflict='wait'"
        )
        raise DefinitionError(msg)


def _no_database(found: TransactionStep[..., Any]) -> DefinitionError:
    return DefinitionError(
        f"{found!r} commits together with the journal's SQLite file, which Temporal does not have. Give "
        "TemporalEngine(transactions=AppTransactions(...)) your application's database, where its rows and its outcome "
        "then commit together; or make it a @step that is safe to repeat, by context().idempotency_key"
    )


def _loaded(place: str) -> Step[..., Any] | None:
    module, _, qualname = place.partition(":")
    found: Any = loaded_module(module) if module else None
    for name in qualname.split("."):
        found = vars(found).get(name) if isinstance(found, (types.ModuleType, type)) else None
    if isinstance(found, Step):
        return found
    if isinstance(found, Definition) or not callable(found):
        return None
    return Step(found, name=qualname, options=StepOptions())

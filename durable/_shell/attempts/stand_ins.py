"""
What a dry run calls in place of the functions of steps, transactions and jobs.

Checked before anything runs, as far as that can be: a typing error in a name, or a function of
other arguments, would otherwise look like a fault of the workflow.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from durable._core.authoring.registry import Definitions
from durable._core.codec.signatures import result_type
from durable._core.program.definition import Definition
from durable._core.program.functions import Job, Step, TransactionStep, Workflow
from durable.errors import DryRunError

#: What a stand-in stands for: a definition, the function given to `call`, or the name of either.
StandFor: TypeAlias = Definition[..., Any] | Callable[..., Any] | str

#: Calls in one dry run: more are a loop without end.
MAX_CALLS = 100_000


class StandIns:
    """The stand-ins of one dry run."""

    def __init__(self, given: Mapping[StandFor, Callable[..., Any]], definitions: Definitions) -> None:
        self._by_function: dict[tuple[Any, str | None], Callable[..., Any]] = {}
        self._by_name: dict[str, Callable[..., Any]] = {}
        self._calls = 0
        #: The first call that had none.
        self.missing: DryRunError | None = None
        for key, stand_in in given.items():
            self._add(key, stand_in, definitions)

    def _add(self, key: Any, stand_in: Any, definitions: Definitions) -> None:
        what = f"the stand-in for {key!r}"
        if isinstance(key, Workflow) or (isinstance(key, str) and isinstance(definitions.get(key), Workflow)):
            raise DryRunError(what, "a workflow needs none: it runs, and its steps have stand-ins")
        if isinstance(key, Job) and not definitions.knows(key):
            raise DryRunError(what, "this job is not among the definitions given to Engine")
        found: list[Any] = []
        if isinstance(key, str):
            found = [each for each in _known(definitions) if _name(each) == key]
            if not found:
                reason = "no step, transaction or job of that name was found; give the definition itself as the key"
                raise DryRunError(what, reason)
            self._by_name[key] = stand_in
        elif isinstance(key, (Step, TransactionStep, Job)):
            found = [key]
            self._by_function[key.fn, key.name] = stand_in
        elif isinstance(key, types.FunctionType):
            found = [key]
            self._by_function[key, None] = stand_in
        else:
            raise DryRunError(what, "a key is a step, transaction or job, or the name of one")
        if not callable(stand_in):
            reason = f"it is not a function, but {stand_in!r:.80}: for one fixed value write `lambda *_: value`"
            raise DryRunError(what, reason)
        for each in found:
            check_fits(what, each, stand_in)

    async def call(
        self,
        definition: Definition[..., Any],
        position: str,
        run_id: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """
        What the stand-in of *definition* returns.

        Raises:
            DryRunError: If there is none.
        """
        what = f"{definition.kind} {definition.name!r} at {position} of run {run_id!r}"
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise DryRunError(what, f"more than {MAX_CALLS:,} calls were made: the workflow does not seem to end")
        stand_in = (
            self._by_function.get((definition.fn, definition.name))
            or self._by_function.get((definition.fn, None))
            or self._by_name.get(definition.name)
        )
        if stand_in is None:
            name = definition.name if definition.name.isidentifier() else repr(definition.name)
            names = ", ".join(each.name for each in _parameters(definition))
            missing = DryRunError(
                what,
                "it has no stand-in, and a dry run executes nothing: "
                f"give it one, stand_ins={{{name}: lambda {names}: ...}}".replace("lambda :", "lambda:"),
            )
            self.missing = self.missing or missing
            raise missing
        value = stand_in(*args, **kwargs)
        return await value if inspect.isawaitable(value) else value


def result_types(name: str, definitions: Definitions) -> list[Any]:
    """What the definition or function called *name* returns: one type, unless there are several of that name."""
    found: list[Any] = [each for each in _known(definitions) if _name(each) == name]
    if (definition := definitions.find(name)) is not None:
        found.append(definition)
    types: list[Any] = []
    for each in found:
        kind = each.result if isinstance(each, Definition) else result_type(each)
        if kind not in types:
            types.append(kind)
    return types


def _known(definitions: Definitions) -> Iterator[Any]:
    """What the code of *definitions* can see: jobs, steps, transactions, and functions for `call`."""
    for definition in definitions.all():
        if isinstance(definition, Job):
            yield definition
        for value in _seen(definition.fn):
            if isinstance(value, types.ModuleType):
                yield from (each for each in vars(value).values() if isinstance(each, (Step, TransactionStep)))
            elif isinstance(value, (Step, TransactionStep, types.FunctionType)):
                yield value


def _seen(fn: Callable[..., Any]) -> Iterator[Any]:
    yield from fn.__globals__.values()
    for cell in fn.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not bound yet, so it cannot be a definition that the code names
            continue


def _name(found: Any) -> str:
    name: str = found.name if isinstance(found, Definition) else found.__qualname__
    return name


def _parameters(found: Definition[..., Any] | types.FunctionType) -> list[inspect.Parameter]:
    """Those that a call gives: without the transaction, and without ``*args`` and ``**kwargs``."""
    fn = found.fn if isinstance(found, Definition) else found
    parameters = list(inspect.signature(fn).parameters.values())
    if isinstance(found, TransactionStep):
        del parameters[0]
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each for each in parameters if each.kind not in rest]


def check_fits(what: str, found: Definition[..., Any] | types.FunctionType, stand_in: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(stand_in)
    except (TypeError, ValueError):  # some builtins have none: whether they fit cannot be known before the call
        return
    parameters = _parameters(found)
    required = [each for each in parameters if each.default is inspect.Parameter.empty]
    for given in (parameters, required):
        args = [each for each in given if each.kind is not inspect.Parameter.KEYWORD_ONLY]
        named = {each.name: each for each in given if each.kind is inspect.Parameter.KEYWORD_ONLY}
        try:
            signature.bind(*args, **named)
        except TypeError as error:
            names = ", ".join(each.name for each in parameters)
            reason = f"it takes {signature}, and is called with ({names}): {error}"
            raise DryRunError(what, reason) from None

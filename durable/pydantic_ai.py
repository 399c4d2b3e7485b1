"""
Agents of Pydantic AI that survive a crash: each request to a model and each call of a tool is made once.

    from pydantic_ai import Agent
    from durable.pydantic_ai import Durability

    agent = Agent("openai:gpt-5", name="researcher", capabilities=[Durability(stream="tokens")])

    @step
    async def research(question: str) -> str:
        return (await agent.run(question)).output

It needs the extra `pydantic-ai`. Inside a step or job, what the agent asks a model or a tool is a `memo`: recorded at
once, under the step's position. After a crash, or in a later attempt, the step runs again, finished memos answer from
the journal, and the agent is where it was. Outside, the agent is as it is without.

A request or tool call that was cut off is made again: at least once, as any step. Tools run one after the other, so
that their order is recorded. What a person has to decide is a `Request` in the workflow around the step.

Built on the public kit for durable execution of Pydantic AI (`pydantic_ai.durable_exec`), which moves still: the extra
names the versions that are tried.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

try:
    from pydantic import TypeAdapter
    from pydantic_ai import AgentStreamEvent, RunContext
    from pydantic_ai.durable_exec import (
        JSON_CODEC,
        BaseDurabilityCapability,
        DurabilityEngineSpec,
        DurableOperationBackend,
        DurableOperationId,
        JournalCallableOperationBackend,
        RoleBasedOperationConfig,
        conversation_id_from_run_id,
    )
    from pydantic_ai.messages import ModelResponse, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
    from pydantic_ai.models import Model
except ImportError as _error:
    _msg = "durable.pydantic_ai needs Pydantic AI: pip install 'durable-asyncio[pydantic-ai]'"
    raise ImportError(_msg) from _error

from durable._core.program.saying import emit
from durable._shell.attempts.context import Scope, memo, scope_here

__all__ = ["Durability"]

#: Whether a unit of work is running: what it asks in turn is a part of it, and recorded with it.
_inside: ContextVar[bool] = ContextVar("durable_pydantic_ai_inside", default=False)
#: Runs of agents that this attempt of a step has begun.
_begun: ContextVar[tuple[Scope | None, int]] = ContextVar("durable_pydantic_ai_begun", default=(None, 0))
_MEMO_OF_START: Final = "began"
_RESPONSE: Final = TypeAdapter(ModelResponse)


class _Memos(JournalCallableOperationBackend[None]):
    """Runs what a model or a tool is asked as a memo of the step."""

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,  # noqa: ARG002 - of the interface, as the next two are
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],  # noqa: ARG002
        config: None,  # noqa: ARG002
    ) -> object:
        """The value of *body*, once it is recorded; or the recorded one."""

        async def unit() -> Any:
            token = _inside.set(True)
            try:
                return _priced(await body())
            finally:
                _inside.reset(token)

        return await memo(name, unit)


def _priced(answer: Any) -> Any:
    """What a model answered, with its price where that is known: for people who look at the memo, and for limits."""
    match answer:
        case {"kind": "response", "usage": {"cost": None} as usage}:
            with suppress(LookupError, ValueError, AssertionError):
                usage["cost"] = str(_RESPONSE.validate_python(answer).cost().total_price)
        case _:
            pass  # of a tool, or priced
    return answer


class Durability(BaseDurabilityCapability[Any]):
    """
    Makes an agent durable where it runs in a step or job: ``Agent(..., capabilities=[Durability()])``.

    The agent needs a name, and its toolsets ids: what is recorded is found again by them.

    Args:
        models: Models by id that a run may be switched to.
        name: The agent's, for its memos; by default its own.
        stream: A stream of the run to which the text of the model is emitted as it comes: see `durable.emit`.
        event_stream_handler: Or a handler of events of your own.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="durable",
        durable_unit_noun="memo",
        durable_container_noun="step",
        codec=JSON_CODEC,
        sequential_tools_in_durable_context=True,
    )

    def __init__(
        self,
        *,
        models: Mapping[str, Model] | None = None,
        name: str | None = None,
        stream: str | None = None,
        event_stream_handler: Any = None,
    ) -> None:
        if stream is not None and event_stream_handler is None:
            event_stream_handler = _emitting(stream)
        super().__init__(models=models, event_stream_handler=event_stream_handler, name=name)

    @property
    def in_durable_context(self) -> bool:
        """Whether what is asked now is to be recorded: in a step or job, and not within a memo."""
        return scope_here() is not None and not _inside.get()

    def get_durable_operation_backend(self) -> DurableOperationBackend[None]:
        """How it is."""
        return _Memos(
            agent_name=self.name,
            default_model_id=self.default_model_id,
            config=RoleBasedOperationConfig(model=None, event=None, capability=None, tool=None),
        )

    def get_default_run_id(self) -> str | None:
        """Of a run of the agent: the same in each attempt of the step, since it goes into what is asked."""
        scope = scope_here()
        if scope is None:
            return None
        of, before = _begun.get()
        count = before + 1 if of is scope else 1
        _begun.set((scope, count))
        return f"{scope.context.run_id}:{scope.context.position}:{count}"

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """Likewise."""
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    async def get_run_start_time(self, run_id: str) -> datetime | None:  # noqa: ARG002 - of the interface
        """When the run of the agent began, the first time: its deadline counts from there."""
        if not self.in_durable_context:
            return None

        async def now() -> float:
            return datetime.now(UTC).timestamp()

        return datetime.fromtimestamp(await memo(f"{self.name}.{_MEMO_OF_START}", now), UTC)


def _emitting(stream: str) -> Any:
    """A handler that emits the text of a model as it comes; what is answered from the journal was emitted."""

    async def handle(_: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        async for event in events:
            text = ""
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                text = event.part.content
            elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                text = event.delta.content_delta
            if text and scope_here() is not None:
                await emit(stream, text)

    return handle

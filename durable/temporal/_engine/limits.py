"""
Limits as callers see them: the numbers of the code, and who is inside, which the limit's own workflows tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NoReturn

from attrs import frozen

from durable._core.policies.limits import Limit
from durable._shell.handles.handle import LimitInfo
from durable._shell.reports.limit_rows import SlotInfo
from durable.errors import UsageError
from durable.temporal._limits.wire import LIMIT, STATE, State, limiter_id

if TYPE_CHECKING:
    from durable.temporal._engine.asking import Asking

#: Of those who have a slot, and of those who wait for one, that are told: as many as of a file.
_MOST: Final = 100
_NUMBERS: Final = "the numbers of a limit on Temporal are those of the workers' code: change them there, and deploy"


@frozen
class TemporalLimit:
    """A handle on a named limit. As `durable.LimitHandle`, but that its numbers are changed in the code."""

    _asking: Asking
    _limits: Mapping[str, Limit]
    name: str

    async def info(self) -> LimitInfo:
        """
        Its numbers, and who is in it. A worker answers, if anybody is.

        Raises:
            UsageError: The engine knows no limit of this name.
            TimeoutError: No worker answers.
        """
        limit = self._limits.get(self.name)
        if limit is None:
            known = ", ".join(sorted(self._limits)) or "none"
            msg = f"no limit is called {self.name!r} among those of the engine's definitions and limits=: {known}"
            raise UsageError(msg)
        holders: list[SlotInfo] = []
        waiters: list[SlotInfo] = []
        for workflow_id in await self._limiters():
            told = await self._asking.query(workflow_id, STATE)
            if told is None:  # nobody was inside or in line, so it has ended
                continue
            state = State.read(told)
            key = workflow_id.removeprefix(limiter_id(self.name, ""))[1:] or None
            holders += [SlotInfo(each.run, each.position, key, each.since) for each in state.inside]
            waiters += [SlotInfo(each.run, each.position, key, each.since, each.due) for each in state.waiting]
        holders.sort(key=lambda slot: slot.since)
        waiters.sort(key=lambda slot: slot.since)
        return LimitInfo(
            self.name,
            limit.concurrency,
            limit.rate,
            len(holders),
            len(waiters),
            changed=False,
            holders=holders[:_MOST],
            waiters=waiters[:_MOST],
        )

    async def _limiters(self) -> list[str]:
        """Ids of its workflows: its own, and one for each key at which somebody is, as far as lists tell."""
        own = limiter_id(self.name, "")
        query = f"WorkflowType = '{LIMIT}' AND ExecutionStatus = 'Running'"
        found = [each.id async for each in self._asking.client.list_workflows(query)]
        return [own, *(each for each in found if each.startswith(f"{own}:") and self._is_mine(each))]

    def _is_mine(self, workflow_id: str) -> bool:
        """Whether it is not one of a limit whose name begins as that of this one does."""
        others = [limiter_id(name, "") for name in self._limits if len(name) > len(self.name)]
        return not any(workflow_id == each or workflow_id.startswith(f"{each}:") for each in others)

    async def change(self, **_: object) -> NoReturn:
        """Not known on Temporal: raises UsageError."""
        raise UsageError(_NUMBERS)

    async def reset(self) -> NoReturn:
        """Not known on Temporal: raises UsageError."""
        raise UsageError(_NUMBERS)

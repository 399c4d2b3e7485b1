"""
What an engine was given, checked and in the form in which it is used. Nothing in it changes while the engine runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from durable._core.admission import Queue
from durable._core.authoring.registry import Definitions
from durable._core.authoring.schedules import Schedule
from durable._core.codec.codec import Codec
from durable._core.light_frozen import light_frozen
from durable._core.policies.caps import Caps
from durable._core.policies.limits import Limit
from durable._core.ports import Clock
from durable._shell.attempts.hooks import Hooks
from durable._shell.attempts.resources import NO_RESOURCES, Resources
from durable._shell.attempts.stand_ins import StandIns
from durable._shell.engine.application_schema import NO_SCHEMA, ApplicationSchema
from durable._shell.rows.carried import NO_CARRY, Carry
from durable._shell.storage.port import OpenDatabase

#: Gives the number of the next run. There is one owner of a file, so counting in memory is enough.
Allocate: TypeAlias = Callable[[], int]


def counting(last: int) -> Allocate:
    """Numbers after *last*, one after the other."""
    return itertools.count(last + 1).__next__


@light_frozen(kw_only=True)
class Settings:
    """The arguments of `Engine`, where they are described; durations are in seconds."""

    path: str
    definitions: Definitions
    queues: tuple[Queue, ...]
    #: Those listed, and those that the definitions bring along, by name.
    limits: Mapping[str, Limit]
    schedules: Mapping[str, Schedule]
    concurrency: int
    durability: Literal["full", "process"]
    commits: Literal["thread", "inline"]
    keep_resident: int
    keep_finished: float | None
    codec: Codec
    clock: Clock
    check_on_open: bool
    standby: bool
    grace: float
    crash_limit: int
    cleanup_seconds: float
    #: At most, for plain functions.
    threads: int
    caps: Caps
    #: The middleware.
    hooks: Hooks
    replay_always: bool
    storage: OpenDatabase | None
    #: Whether a journal, or a folder of it, that others may write is refused.
    strict_permissions: bool = False
    #: The application's own tables.
    schema: ApplicationSchema = NO_SCHEMA
    #: What steps and jobs share.
    resources: Resources = NO_RESOURCES
    #: The context variables that runs take along.
    carry: Carry = NO_CARRY
    #: Whether the file may lie where locks do not hold.
    allow_network_fs: bool = False
    #: What is called in place of functions, in a dry run.
    stand_ins: StandIns | None = None
    #: Numbers runs, given the highest number in the file. That of a dry run has an end.
    numbering: Callable[[int], Allocate] = counting

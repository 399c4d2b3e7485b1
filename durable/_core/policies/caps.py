"""
Caps: how large things may grow before they are refused, and how often the process may die of a step.

Each has a reason for its value; all can be changed per engine.
"""

from __future__ import annotations

from attrs import field

from durable._core.codec.codec import MAX_BYTES, MAX_DEPTH
from durable._core.light_frozen import late_frozen

#: A step that was running this often when the process died is poison, see `suspicion`. Three, as in Sidekiq's
#: super_fetch: one crash is bad luck, two may be, three is the step.
CRASH_LIMIT = 3
#: Seconds that a cancelled run may spend on clean-up.
CLEANUP_SECONDS = 60.0


@late_frozen(kw_only=True)
class Caps:
    """
    Sizes beyond which an engine refuses, with `CapExceededError` naming run and step.

    Args:
        value_bytes: Of one recorded value, as JSON. A journal is no place for files: keep them
            beside it and record where.
        nesting: Of one value's lists and objects.
        events: Of one run. A million replay in some seconds; then the run is blocked. Endless
            loops `continue_as`.
        stream_items: That an attempt of a step emits, or the code of a workflow.
        stream_buffer: Emitted by all runs, and not yet on disk. Who emits more waits, or is refused where he cannot.
        events_warning: From here on the log warns. Temporal warns at 10,240.

    Example:
        >>> engine = Engine("app.db", [], caps=Caps(value_bytes=4 << 20))
    """

    value_bytes: int = field(default=MAX_BYTES)
    nesting: int = field(default=MAX_DEPTH)
    events: int = field(default=1_000_000)
    events_warning: int = field(default=10_000)
    stream_items: int = field(default=1_000_000)
    stream_buffer: int = field(default=100_000)


DEFAULT_CAPS = Caps()

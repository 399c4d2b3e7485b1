"""
Calls the function of a step in a worker process, and says what became of it.

What it raised is recorded there, and rebuilt here: an exception need not survive pickling (many do not), its traceback
is kept, and none of its code runs in the engine's process.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from durable._core.codec.codec import Codec
from durable._core.codec.exceptions.failures import Failure, rebuild, record_exception
from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.light_frozen import light_frozen
from durable._core.program.functions import Step
from durable._shell.attempts.asking import Asking
from durable._shell.attempts.raised import as_failure
from durable._shell.rows.carried import ElsewhereToo, set_elsewhere
from durable.errors import Fatal

# Where the program is in no file (frozen, a shell, `python -c`), anyio leaves the worker without a main module. In a
# frozen one `inspect` asks for it, and so does each @workflow of a module that is imported there: for the sake of an
# argument, or of the function. What is called is imported before both, and that is in this module.
sys.modules.setdefault("__main__", ModuleType("__main__"))


class InterruptedCall(Exception):  # noqa: N818 - no error: the call is made again
    """The worker was told to stop, by Ctrl-C or a signal: how the function would have ended is unknown."""


@light_frozen
class FailedElsewhere:
    """What a function raised in a worker."""

    #: `Failure.to_json`; None if it was interrupted.
    failure: dict[str, Any] | None

    def rebuilt(self) -> Exception:
        """What to raise here."""
        if self.failure is None:
            return InterruptedCall()
        failure = Failure.from_json(self.failure)
        if failure.module not in sys.modules:
            # The worker's word is no journal's: its code is ours, and what it has imported may be imported here.
            with contextlib.suppress(Exception):
                importlib.import_module(failure.module)
        return rebuild(failure)


def check_importable(definition: Step[..., Any]) -> None:
    """
    Nothing, if a worker process can find the function of *definition*.

    Raises:
        Fatal: It is part of a program that can only be run: frozen, from a shell, or `python -c`.
    """
    main = sys.modules["__main__"]
    if definition.fn.__module__ != "__main__":
        return
    if getattr(sys, "frozen", False) or not os.path.isfile(getattr(main, "__file__", None) or ""):
        msg = (
            f"{definition.kind} {definition.name!r} has process=True and is part of the script that was frozen (or of "
            "code that is in no file), which worker processes cannot import: move it into a module of its own"
        )
        raise Fatal(msg)


def call_in_worker(
    module: str, qualname: str, args: tuple[Any, ...], kwargs: dict[str, Any], carried: Sequence[ElsewhereToo]
) -> Any:
    """In the worker: finds the definition where its module put it, and calls its function."""
    return contextvars.copy_context().run(_call, module, qualname, args, kwargs, carried)


def _call(
    module: str, qualname: str, args: tuple[Any, ...], kwargs: dict[str, Any], carried: Sequence[ElsewhereToo]
) -> Any:
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
        for name in qualname.split("."):
            found = getattr(found, name)
        set_elsewhere(carried)
        return getattr(found, "fn", found)(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - user code may raise anything
        if came_from_outside(error):
            return FailedElsewhere(None)
        failed = as_failure(error, "step")
        return FailedElsewhere(record_exception(failed, Codec(asking=Asking)).to_json())

"""
Expressions that a person types at the debugger's prompt, evaluated where the code stands.

The only module that evaluates text, and only text from the prompt or a script of it: nothing that comes
out of a journal ever arrives here.
"""

from __future__ import annotations

import reprlib
from types import FrameType
from typing import Any

#: Characters of a value in one line; `pp` shows all.
_LINE = 160


class ExpressionError(Exception):
    """The expression raised, or is none; the message is one line."""


def evaluate(expression: str, frame: FrameType) -> Any:
    """
    The value of *expression* with the globals and locals of *frame*. What it binds changes nothing there.

    Raises:
        ExpressionError: It raised, or is not an expression.
    """
    # In one namespace: with two, the inner scopes of comprehensions and lambdas would not see the locals.
    scope = {**frame.f_globals, **frame.f_locals}
    try:
        return eval(expression.strip(), scope)  # noqa: S307 - typed by the person who debugs
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        text = str(error).partition("\n")[0]
        message = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise ExpressionError(message) from error


def is_true(expression: str, frame: FrameType) -> bool:
    """Whether *expression* is true at *frame*; where it raises (a name is not bound yet), it is not."""
    try:
        return bool(evaluate(expression, frame))
    except Exception:  # noqa: BLE001 - of the expression, or of the truth of its value
        return False


class _Short(reprlib.Repr):
    """Values in one line: long ones shortened, broken ones named."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 100
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = self.maxdict = 8
        self.maxlevel = 4


_SHORT = _Short()


def short(value: Any) -> str:
    """*value* in one line, for people."""
    try:
        text = _SHORT.repr(value)
    except Exception as error:  # noqa: BLE001 - the user's own __repr__
        return f"<{type(value).__name__}: its repr raised {type(error).__name__}>"
    text = " ".join(text.split("\n"))
    return text if len(text) <= _LINE else f"{text[: _LINE - 3]}..."


def whole(value: Any) -> list[str]:
    """All of *value*, on lines."""
    import pprint  # noqa: PLC0415 - for `pp` only

    try:
        return pprint.pformat(value, width=100).splitlines()
    except Exception as error:  # noqa: BLE001 - the user's own __repr__
        return [f"<{type(value).__name__}: its repr raised {type(error).__name__}>"]

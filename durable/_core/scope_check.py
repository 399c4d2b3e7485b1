"""
Refuses cancel scopes around a `yield` or `await` of workflow code.

``async with asyncio.timeout(3):`` around a command would cancel the task that drives the
workflow, not the workflow (PEP 789), and would be gone after a crash. So a workflow whose
source is at hand is read once, when it is defined, and refused with the durable form named.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from durable.errors import DefinitionError

#: The name a scope is called by -> what to write instead.
_INSTEAD = {
    "timeout": "durable.timeout(op, seconds)",
    "timeout_at": "durable.timeout(op, seconds)",
    "fail_after": "durable.timeout(op, seconds)",
    "fail_at": "durable.timeout(op, seconds)",
    "move_on_after": "durable.settle(durable.timeout(op, seconds))",
    "move_on_at": "durable.settle(durable.timeout(op, seconds))",
    "CancelScope": "durable.timeout or durable.race",
    "TaskGroup": "durable.gather(...)",
    "create_task_group": "durable.gather(...)",
    "open_nursery": "durable.gather(...)",
}


def refuse_scopes(fn: Callable[..., Any], name: str) -> None:
    """
    Read the source of *fn* and refuse cancel scopes around its commands.

    Raises:
        DefinitionError: Naming the line and the durable form.
    """
    try:
        lines, first_line = inspect.getsourcelines(fn)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError, TypeError, ValueError):
        return  # no source at hand (a shell, a frozen program): the run-time check remains
    for node in ast.walk(tree):
        if not isinstance(node, (ast.With, ast.AsyncWith)):
            continue
        for item in node.items:
            called = item.context_expr.func if isinstance(item.context_expr, ast.Call) else None
            scope = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
            if scope in _INSTEAD and any(_suspends(statement) for statement in node.body):
                line = first_line + node.lineno - 1
                msg = (
                    f"workflow {name!r} yields or awaits inside `{ast.unparse(item.context_expr)}` "
                    f"({fn.__code__.co_filename}:{line}): such a scope would cancel the engine's own task and be gone "
                    f"after a crash. Use {_INSTEAD[scope]} instead"
                )
                raise DefinitionError(msg)


def _suspends(statement: ast.AST) -> bool:
    """Whether *statement* holds a yield or await of the function itself (not of one nested in it)."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        return False
    if isinstance(statement, (ast.Yield, ast.Await, ast.AsyncFor, ast.AsyncWith)):
        return True
    return any(_suspends(child) for child in ast.iter_child_nodes(statement))

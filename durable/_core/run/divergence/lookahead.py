"""
What workflow code may still ask for, read from its bytecode: for guesses about what changed in it.

From where a strand stands, the instructions that can still be reached name the steps and jobs to come;
all instructions name those that the code has at all. Names are looked up as the code would, in globals,
closures and locals. Bytecode, because a frozen program has no source; only read, never run.
"""

from __future__ import annotations

import dis
import inspect
import itertools
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from durable._core.program.definition import Definition

#: Helpers within helpers that are looked into.
_MAX_DEPTH = 4
#: Where our own commands are made: `sleep`, `gather` and the like.
_MAKING = "durable._core.authoring.op_constructors"
_STOPS = frozenset(("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE"))
_ALWAYS_JUMPS = frozenset(("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"))
_LOADS = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FAST", "LOAD_FAST_CHECK"))
_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))
#: The names found in helpers, by helper and depth.
_LookedInto: TypeAlias = dict[tuple[Any, int], list[str]]


def names_ahead(frame: types.FrameType) -> list[str]:
    """Names of the commands that code standing at *frame* can still reach; sleep is "sleep"."""
    instructions = list(dis.get_instructions(frame.f_code))
    reached = reachable(instructions, frame.f_lasti)
    return _named([each for each in instructions if each.offset in reached], _scope(frame), _MAX_DEPTH, {})


def names_in(code: Any) -> list[str]:
    """Names of all commands in the code of a function or frame, and in the helpers that it awaits."""
    if isinstance(code, types.FrameType):
        return _named(dis.get_instructions(code.f_code), _scope(code), _MAX_DEPTH, {})
    return _named_in(code, _MAX_DEPTH, {})


def reachable(instructions: Sequence[dis.Instruction], last: int, *, until: str = "") -> set[int]:
    """
    Offsets of the instructions that may run after the one at offset *last*; handlers of exceptions apart.

    Nothing behind those called *until*.
    """
    stops = {*_STOPS, until}
    following = {a.offset: b.offset for a, b in itertools.pairwise(instructions)}
    by_offset = {each.offset: each for each in instructions}
    reached: set[int] = set()
    pending = [following[last]] if last in following else []
    while pending:
        offset = pending.pop()
        if offset in reached or offset not in by_offset:
            continue
        reached.add(offset)
        instruction = by_offset[offset]
        if instruction.opcode in _JUMPS:
            pending.append(instruction.argval)
        if instruction.opname not in stops and instruction.opname not in _ALWAYS_JUMPS and offset in following:
            pending.append(following[offset])
    return reached


def _scope(frame: types.FrameType) -> dict[str, Any]:
    return {**frame.f_globals, **frame.f_locals}


def _named(
    instructions: Iterable[dis.Instruction], scope: Mapping[str, Any], depth: int, looked_into: _LookedInto
) -> list[str]:
    """Each name once, where it comes first."""
    found: list[str] = []
    before = ""  # a command of ours that is named together with what follows
    module: types.ModuleType | None = None
    for instruction in instructions:
        value: Any = None
        if instruction.opname in _LOADS and isinstance(instruction.argval, str):
            value = scope.get(instruction.argval)
        elif module is not None and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            ours = module.__name__ == "durable"  # which loads its names at their first use; others' code is not run
            value = getattr(module, instruction.argval, None) if ours else vars(module).get(instruction.argval)
        elif before == "wait_for" and instruction.opname == "LOAD_CONST" and isinstance(instruction.argval, str):
            found.append(f"wait_for {instruction.argval}")
            before = ""
        module = value if isinstance(value, types.ModuleType) else None
        if isinstance(value, Definition):
            names = (value.name, *value.aliases)
            found += [f"for_each {name}" for name in names] if before == "for_each" else names
            before = ""
        elif isinstance(value, types.FunctionType):
            if value.__module__ == _MAKING:
                before = value.__name__
                found.append(before)
            elif before == "for_each" and inspect.iscoroutinefunction(value):
                found.append(f"for_each {value.__name__}")
                found += _named_in(value, depth - 1, looked_into) if depth else []
                before = ""
            elif before == "call" or not inspect.iscoroutinefunction(value):
                found.append(value.__qualname__)
            elif depth and not _is_library(value):
                found += _named_in(value, depth - 1, looked_into)
    return list(dict.fromkeys(found))


def _named_in(fn: Any, depth: int, looked_into: _LookedInto) -> list[str]:
    """Those in a helper: looked into once for each depth, since helpers that await each other have many ways to it."""
    if (fn, depth) not in looked_into:
        looked_into[fn, depth] = _named(dis.get_instructions(fn.__code__), _scope_of(fn), depth, looked_into)
    return looked_into[fn, depth]


def _scope_of(fn: types.FunctionType) -> dict[str, Any]:
    return {**fn.__globals__, **dict(_closure(fn))}


def _closure(fn: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not bound yet, so it cannot be what the code calls next
            continue


def _is_library(fn: types.FunctionType) -> bool:
    """Whether *fn* is of the standard library, which asks for no commands."""
    return (fn.__module__ or "").partition(".")[0] in sys.stdlib_module_names

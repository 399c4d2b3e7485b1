"""
Which annotations a function or a class has, once names and type variables are filled in.

Promise: an annotation that cannot be resolved becomes Any, and does not spoil its neighbours.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Mapping
from typing import Any

from durable._core.codec.rule import NoneType


def innermost(fn: Any) -> Any:
    """The function below decorators and partials."""
    fn = inspect.unwrap(fn)
    while isinstance(fn, functools.partial):
        fn = inspect.unwrap(fn.func)
    return fn


def function_hints(fn: Any, names: Mapping[str, Any] | None) -> dict[str, Any]:
    """The annotations of a function or callable; *names* helps forward references along."""
    fn = innermost(fn)
    if not hasattr(fn, "__annotations__"):
        fn = getattr(type(fn), "__call__", fn)  # noqa: B004 - its annotations, not whether it has it
    fn = getattr(fn, "__func__", fn)
    code = getattr(fn, "__code__", None)
    local: dict[str, Any] = dict(names or {})
    # Classes defined beside a nested function are in reach only if its body mentions them.
    for name, cell in zip(getattr(code, "co_freevars", ()), getattr(fn, "__closure__", None) or (), strict=False):
        try:
            local.setdefault(name, cell.cell_contents)
        except ValueError:  # not assigned yet, so it cannot be what the annotation means
            continue
    return _resolve_all(inspect.get_annotations(fn), getattr(fn, "__globals__", {}), local)


def class_hints(type_: Any) -> dict[str, Any]:
    """The annotations of a class and its bases, with the type variables of each filled in."""
    cls = typing.get_origin(type_) or type_
    args = typing.get_args(type_)
    filled = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
    out: dict[str, Any] = {}
    for base in reversed(vars(cls).get("__orig_bases__", cls.__bases__)):
        origin = typing.get_origin(base) or base
        if isinstance(origin, type) and origin not in (object, dict, tuple, typing.Generic, typing.Protocol):
            out.update(class_hints(substitute(base, filled)))
    module = sys.modules.get(cls.__module__)
    names = vars(module) if module else {}
    own = _resolve_all(inspect.get_annotations(cls), names, {cls.__name__: cls})
    out.update({name: substitute(hint, filled) for name, hint in own.items()})
    return out


def substitute(hint: Any, filled: Mapping[Any, Any]) -> Any:
    """*hint* with its type variables replaced; Any for those that are unknown."""
    if isinstance(hint, typing.TypeVar):
        return filled.get(hint, Any)
    parameters = getattr(hint, "__parameters__", ()) if typing.get_origin(hint) else ()
    if not parameters:
        return hint
    return hint[tuple(filled.get(each, Any) for each in parameters)]


def _resolve_all(
    annotations: Mapping[str, Any], globals_: Mapping[str, Any], locals_: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """*annotations* with their forward references resolved, each by itself; Any where that fails."""
    try:
        return _resolve(annotations, globals_, locals_)
    except Exception:  # noqa: BLE001 - an annotation is any expression of the user's
        out: dict[str, Any] = {}
    for name, annotation in annotations.items():
        try:
            out.update(_resolve({name: annotation}, globals_, locals_))
        except Exception:  # noqa: BLE001 - as above; names under TYPE_CHECKING are the usual case
            out[name] = Any
    return out


def _resolve(annotations: Mapping[str, Any], globals_: Any, locals_: Any) -> dict[str, Any]:
    if not any(isinstance(each, str | typing.ForwardRef) or hasattr(each, "__args__") for each in annotations.values()):
        return {name: NoneType if each is None else each for name, each in annotations.items()}
    # A class as carrier, because only there are Final and ClassVar allowed.
    carrier = type("Carrier", (), {"__annotations__": dict(annotations)})
    return typing.get_type_hints(carrier, dict(globals_), dict(locals_ or {}), include_extras=True)

"""
Classes by name: as a journal knows them, whatever the program was started as.

A class of the file that was started lives in the module ``__main__``; the next program to look at the
journal (a worker, the command line, a frozen binary) knows it by its file's name. So that is what is recorded.
A class that was renamed or moved says so itself, by `aliases`.

What a class says of itself is read past its metaclass, whose code is the user's and may do anything.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from durable.errors import DefinitionError

_C = TypeVar("_C", bound=type)
_ATTRIBUTE = "__durable_aliases__"
_MODULE: Final[Any] = vars(type)["__module__"]
_QUALNAME: Final[Any] = vars(type)["__qualname__"]
_BASES: Final[Any] = vars(type)["__mro__"]
_NAMESPACE: Final[Any] = vars(type)["__dict__"]
_ATTRIBUTES: Final[Any] = vars(types.ModuleType)["__dict__"]


def aliases(*names: str) -> Callable[[_C], _C]:
    """
    Decorates a class that was renamed or moved: what was recorded of it under *names* is read as this class.

    That matters for exceptions, which are rebuilt by name, and for members of unions. Each name is
    ``"OldName"``, or ``"old.module:OldName"`` where others have the same one.

    Raises:
        DefinitionError: A name is none.

    Example:
        >>> @aliases("CardError")  # what was recorded as a CardError is read as this
        ... class PaymentError(Exception): ...
    """
    for name in names:
        given: Any = name
        if not isinstance(given, str) or not all(name.rpartition(":")[2].split(".")):
            msg = f"an alias of a class is 'Name' or 'module:Name', found {name!r}"
            raise DefinitionError(msg)

    def mark(cls: _C) -> _C:
        given: Any = cls
        if not isinstance(given, type):
            msg = f"@aliases decorates a class, found {given!r:.80}; steps and workflows take aliases= as an option"
            raise DefinitionError(msg)
        setattr(cls, _ATTRIBUTE, tuple(names))
        return cls

    return mark


def aliases_of(cls: type) -> tuple[str, ...]:
    """The names that *cls* itself had, not those of its bases."""
    found = namespace_of(cls).get(_ATTRIBUTE)
    return found if type(found) is tuple else ()


def bases_of(cls: type) -> tuple[type, ...]:
    """*cls* and its bases, in the order in which attributes are looked up."""
    found: tuple[type, ...] = _BASES.__get__(cls)
    return found


def namespace_of(cls: type) -> Mapping[str, Any]:
    """What *cls* itself defines."""
    found: Mapping[str, Any] = _NAMESPACE.__get__(cls)
    return found


def qualname_of(cls: type) -> str:
    """The qualified name of *cls*."""
    return str.__str__(_QUALNAME.__get__(cls))  # a plain str, so that no method of a subclass of str runs


def module_of(cls: type) -> str:
    """The module of *cls* as journals name it: never ``__main__``, where that is known by another name."""
    try:
        module: Any = _MODULE.__get__(cls)
    except AttributeError:
        return ""
    if type(module) is not str:  # set to something else: it has none that could be found again
        return ""
    return main_module() if module == "__main__" else module


def main_module() -> str:
    """What the program's main module would be called if it were imported."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        name: str = spec.name
        return name
    file = getattr(main, "__file__", None)
    stem = os.path.splitext(os.path.basename(file))[0] if file else ""
    return stem if stem.isidentifier() else "__main__"


def loaded_module(name: str) -> types.ModuleType | None:
    """The module that journals call *name*, if it is loaded; nothing is imported."""
    found = sys.modules.get(name)
    if found is None and name == main_module():
        found = sys.modules.get("__main__")
    return found


def loaded_class(module: str, qualname: str) -> type | None:
    """The class that journals call so, if it is loaded; no code of its module runs."""
    found: Any = loaded_module(module)
    if module == "durable":  # ours, which loads its names at their first use: one may be recorded that nobody named yet
        return _class_or_none(getattr(found, qualname, None))
    for name in qualname.split("."):
        # By dictionary, not getattr: a module's __getattr__ may import, and so does any attribute of a lazy module.
        if issubclass(type(found), types.ModuleType):
            found = _ATTRIBUTES.__get__(found).get(name)
        elif issubclass(type(found), type):
            found = namespace_of(found).get(name)
        else:
            return None
    return _class_or_none(found)


def _class_or_none(found: Any) -> type | None:
    return found if issubclass(type(found), type) else None


def exception_once_called(module: str, qualname: str) -> type[Exception] | None:
    """The loaded exception class that says it was called so; a walk over all, for names that nothing else has."""
    for cls in _exceptions(Exception, set()):
        for alias in aliases_of(cls):
            old_module, _, old_name = alias.rpartition(":")
            if old_name == qualname and old_module in ("", module):
                return cls
    return None


def _exceptions(base: type[Exception], seen: set[int]) -> Iterator[type[Exception]]:
    for cls in type.__subclasses__(base):
        if id(cls) not in seen:  # an id is enough, because all of them stay alive meanwhile
            seen.add(id(cls))
            yield cls
            yield from _exceptions(cls, seen)

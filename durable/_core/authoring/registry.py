"""
The workflows and jobs that an engine knows: by name, by older names, and by version.

A journal names what a run executes by name and version. Old versions may be kept beside the newest,
so that runs which were started with them end with them; new runs are started with the one that is called.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from durable._core.program.definition import Definition
from durable._core.program.functions import Job, RunnableDefinition, Workflow
from durable.errors import DefinitionError

Runnable = Workflow[..., Any] | Job[..., Any]
#: What engines are given; public as `durable.Definition`: ``DEFINITIONS: list[Definition] = [ride, jobs]``.
Given: TypeAlias = RunnableDefinition[..., Any] | types.ModuleType


class Definitions(Mapping[str, Runnable]):
    """Workflows and jobs by name: the newest version of each. `find` knows the others, and old names."""

    def __init__(self, definitions: Iterable[Runnable] = ()) -> None:
        self._newest: dict[str, Runnable] = {}
        self._versions: dict[tuple[str, int], Runnable] = {}
        self._aliases: dict[str, str] = {}
        for definition in definitions:
            self._add(definition)
        #: Of all of them, which live as long as this: each start asks, and a program may have hundreds.
        self._ids = frozenset(map(id, self._versions.values()))
        for definition in self._versions.values():
            for alias in definition.aliases:
                self._add_alias(alias, definition)

    def _add(self, definition: Runnable) -> None:
        version = definition.options.version
        other = self._versions.setdefault((definition.name, version), definition)
        if other is not definition:
            msg = (
                f"two definitions are called {definition.name!r}: {_place(other)} and {_place(definition)}. Give one "
                "another name=, since the journal knows them by name (or, to keep older code for older runs, another "
                "version=)"
            )
            raise DefinitionError(msg)
        newest = self._newest.setdefault(definition.name, definition)
        if version > newest.options.version:
            self._newest[definition.name] = definition

    def _add_alias(self, alias: str, definition: Runnable) -> None:
        taken = alias if alias in self._newest else self._aliases.get(alias, definition.name)
        if taken != definition.name:
            msg = f"{alias!r} is an alias of {definition!r} at {_place(definition)}, and belongs to {taken!r} already"
            raise DefinitionError(msg)
        self._aliases[alias] = definition.name

    def find(self, name: str, version: int | None = None) -> Runnable | None:
        """
        What a run recorded as *name* and *version* executes; None if nothing does.

        Without that very version it is the newest: its replay tells whether it fits.
        """
        current = name if name in self._newest else self._aliases.get(name, name)
        found = None if version is None else self._versions.get((current, version))
        return found or self._newest.get(current)

    def knows(self, definition: Definition[..., Any]) -> bool:
        """Whether *definition* itself is one of them, in whatever version."""
        return id(definition) in self._ids

    def all(self) -> list[Runnable]:
        """Every version of every one."""
        return list(self._versions.values())

    def __getitem__(self, name: str) -> Runnable:
        return self._newest[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._newest)

    def __len__(self) -> int:
        return len(self._newest)


def collect(definitions: Iterable[Given]) -> Definitions:
    """
    The workflows and jobs among *definitions*, or in the modules among them.

    Raises:
        DefinitionError: If two have one name and version, or something is neither.
    """
    given: Any = definitions  # as users pass them
    if isinstance(given, (Definition, types.ModuleType, str)) or not isinstance(given, Iterable):
        msg = f"Engine(path, definitions) takes a list of workflows, jobs or modules of them, found {given!r:.80}"
        raise DefinitionError(msg)
    found: list[Runnable] = []
    for item in given:
        if isinstance(item, types.ModuleType):
            found += [value for value in vars(item).values() if isinstance(value, (Workflow, Job))]
        elif isinstance(item, (Workflow, Job)):
            found.append(item)
        else:
            hint = " (steps and transactions need not be listed)" if isinstance(item, Definition) else ""
            msg = f"definitions are workflows, jobs or modules of them; found {item!r:.80}{hint}"
            raise DefinitionError(msg)
    return Definitions(found)


def _place(definition: Definition[..., Any]) -> str:
    code = definition.fn.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"

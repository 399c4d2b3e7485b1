"""
Context variables that travel with runs: a request id, a tenant, a locale.

Recorded with the start of a run, and set again where its steps and jobs run, in whatever process, and where those of
its children do. As text in the first event, so that export, fork and retry take them along.
"""

from __future__ import annotations

import base64
import importlib
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from durable._core.codec.codec import Codec, Payload
from durable._core.codec.exceptions.safe_text import shown
from durable.errors import DefinitionError

#: What codec hooks made of the values is no text, which JSON never begins with.
_BINARY: Final = "base64:"
_WHERE: Final = "the context variables of Engine(carry=)"
_UNSET: Final = object()

#: A module, the name that a variable has in it, and what that holds.
ElsewhereToo: TypeAlias = tuple[str, str, Any]


@runtime_checkable
class Carried(Protocol):
    """What is carried: a `contextvars.ContextVar`, or what is asked and set as one."""

    @property
    def name(self) -> str: ...

    def get(self, default: Any, /) -> Any:
        """What it holds where a run is started; *default* if nothing."""
        ...

    def set(self, value: Any, /) -> Any:
        """Hold it again, where the run is driven."""
        ...


class Carry:
    """
    The variables that an application has named.

    Raises:
        DefinitionError: They are no context variables, or two of them have one name.
    """

    def __init__(self, variables: Iterable[Carried] = ()) -> None:
        given: Any = variables
        if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
            msg = f"Engine(carry=) takes a list of context variables, found {shown(given, 60)}"
            raise DefinitionError(msg)
        self._variables: dict[str, Carried] = {}
        #: Of those that are in a module: the module and the name there.
        self._places: dict[str, tuple[str, str]] | None = None
        for each in given:
            if not isinstance(each, Carried) or isinstance(each, type):
                msg = f"Engine(carry=) takes context variables (contextvars.ContextVar), found {shown(each, 60)}"
                raise DefinitionError(msg)
            if self._variables.setdefault(each.name, each) is not each:
                msg = f"Engine(carry=) has two variables called {each.name!r}: they are recorded by their names"
                raise DefinitionError(msg)

    def captured(self, codec: Codec) -> str:
        """
        What those that are set here hold, as it is recorded; empty if none is.

        Raises:
            EncodeError: A value cannot be recorded.
        """
        if not self._variables:
            return ""
        values = {name: variable.get(_UNSET) for name, variable in self._variables.items()}
        values = {name: value for name, value in values.items() if value is not _UNSET}
        if not values:
            return ""
        payload = codec.encode(values, where=_WHERE)
        return payload if isinstance(payload, str) else _BINARY + base64.b64encode(payload).decode()

    def set_again(self, carried: str, codec: Codec) -> bool:
        """
        Set in the context that calls what `captured` gave; whether anything was.

        A variable that this program does not name is left out: it has no use for it.

        Raises:
            DecodeError: It cannot be read by this program.
        """
        if not carried or not self._variables:
            return False
        payload: Payload = carried
        if carried.startswith(_BINARY):
            payload = base64.b64decode(carried.removeprefix(_BINARY))
        values: dict[str, Any] = codec.decode(payload, where=_WHERE)
        for name, value in values.items():
            if (variable := self._variables.get(name)) is not None:
                variable.set(value)
        return True

    def for_a_process(self) -> list[ElsewhereToo]:
        """
        What is set here, as a process finds it that shares no objects with this one.

        By the module that has the variable, which is looked for once: one that is in no module, as a local variable
        of a function, cannot be reached from there.
        """
        if self._places is None:
            named = {id(each): each for each in self._variables.values() if isinstance(each, ContextVar)}
            self._places = {}
            for name, module in list(sys.modules.items()):
                for attribute, value in list(getattr(module, "__dict__", {}).items()):
                    if id(value) in named:
                        self._places.setdefault(value.name, (name, attribute))
        held = ((place, self._variables[name].get(_UNSET)) for name, place in self._places.items())
        return [(*place, value) for place, value in held if value is not _UNSET]


def set_elsewhere(carried: Iterable[ElsewhereToo]) -> None:
    """In that process: set them in the context that calls."""
    for module, attribute, value in carried:
        getattr(sys.modules.get(module) or importlib.import_module(module), attribute).set(value)


NO_CARRY: Final = Carry()

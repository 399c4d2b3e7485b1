"""
Loads the application that a command works with: its workflows and jobs, and its codec.

The module is imported as ``python -m`` would import it (or, given as a file, as its own folder's
script would be: under the name that journals know it by). No engine is opened. What the application
prints while it is imported goes to standard error: standard output belongs to the command.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import pkgutil
import sys
import sysconfig
import traceback
import types
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import frozen

from durable._cli.journals.files import APPLICATION_VARIABLE
from durable._cli.terminal.output import printable
from durable._cli.terminal.problems import CommandError
from durable._core.authoring.registry import Runnable, collect
from durable._core.codec.class_names import loaded_module
from durable._core.codec.codec import Codec
from durable._core.program.definition import Definition
from durable._core.program.functions import Job, Workflow
from durable._core.program.ops import Signal
from durable._core.program.requests import Request
from durable._core.source_places import OURS

if TYPE_CHECKING:
    from durable._shell.engine.engine import Engine

T = TypeVar("T")

_EXPECTED: Final = (
    "expected a module with workflows or jobs, an Engine, a list of definitions, "
    "or a function without arguments that returns one of these"
)
#: Names that a message lists: enough to recognise what was found.
_NAMED: Final = 5


@frozen
class Application:
    """What an application brings along."""

    #: As it was named: ``pkg.mod`` or ``pkg.mod:name``.
    name: str
    #: Workflows and jobs, or modules of them, as an engine takes them.
    definitions: list[Runnable | types.ModuleType]
    #: With the hooks of its engine, where it was given one.
    codec: Codec

    def signal_type(self, name: str) -> Any:
        """What signals called *name* carry, if one `Signal` in the modules of its definitions says so; else None."""
        kinds = [each.type for each in self._named(Signal, name)]
        return kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else None

    def question_type(self, name: str) -> Any:
        """As `signal_type`, of what is asked by requests called *name*."""
        kinds = [each.question for each in self._named(Request, name)]
        return kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else None

    def _named(self, cls: type[Any], name: str) -> list[Any]:
        """Objects of *cls* called *name*, in the modules of its definitions."""
        modules = [
            each if isinstance(each, types.ModuleType) else sys.modules.get(each.fn.__module__)
            for each in self.definitions
        ]
        found = [
            each
            for module in dict.fromkeys(modules)
            for each in vars(module or object).values()
            if isinstance(each, cls) and each.name == name
        ]
        return list({id(each): each for each in found}.values())


def add_application(parser: ArgumentParser) -> None:
    """The option that says which application."""
    parser.add_argument(
        "--app",
        metavar="MODULE[:NAME]",
        default=os.environ.get(APPLICATION_VARIABLE),
        help="the application: pkg.mod, pkg.mod:engine, or a file such as examples/ride.py "
        f"(default: ${APPLICATION_VARIABLE})",
    )


def application_of(args: Namespace) -> Application:
    """
    The application that was asked for.

    Raises:
        CommandError: None was named, or it cannot be loaded.
    """
    if not args.app:
        msg = f"which application? Name it with --app pkg.mod, or set {APPLICATION_VARIABLE}"
        raise CommandError(msg)
    return load_application(args.app)


def load_application(text: str) -> Application:
    """
    The application called *text*: a dotted module or the path of a .py file, and ``:name`` of something in it.

    A module stands for its workflows and jobs; those of an `Engine` or `Service`, if it has just one, are added, and
    the engine's codec is used.

    Raises:
        CommandError: It cannot be imported, or is not an application.
        DefinitionError: Its definitions contradict each other.
    """
    head, colon, tail = text.rpartition(":")
    place, name = (head, tail) if colon else (text, "")
    if not place or (colon and not name):
        msg = f"{text!r} is not an application: give pkg.mod, pkg.mod:name, or a .py file"
        raise CommandError(msg)
    module = _from_file(place) if place.endswith(".py") or os.sep in place else _from_name(place)
    found: Any = _member(module, name) if name else module
    if _is_function(found):
        found = _called(found, text)
    definitions, codec = _contents(found, text)
    return Application(text, definitions, codec)


def load_object(text: str) -> Any:
    """
    What *text* names, other than an application: ``pkg.mod:name``, or ``file.py:name``.

    Raises:
        CommandError: It cannot be imported, or there is no such name.
    """
    place, _, name = text.rpartition(":")
    if not place or not name:
        msg = f"{text!r}: give MODULE:NAME, as app.privacy:redact"
        raise CommandError(msg)
    return _member(_from_file(place) if place.endswith(".py") or os.sep in place else _from_name(place), name)


# --- what it is --------------------------------------------------------------------------------------


def _contents(found: Any, text: str) -> tuple[list[Runnable | types.ModuleType], Codec]:
    from durable._shell.engine.engine import Engine  # noqa: PLC0415 - the application has loaded it by now
    from durable._shell.engine.service import Service, engine_of  # noqa: PLC0415 - as above
    from durable._shell.handles.journal import backend_of  # noqa: PLC0415 - as above

    definitions: list[Runnable | types.ModuleType] = []
    codec = Codec()
    if isinstance(found, Service):
        found = engine_of(found)
    if isinstance(found, Engine):
        settings = backend_of(found).settings
        definitions += settings.definitions.all()
        codec = settings.codec
    elif isinstance(found, types.ModuleType):
        engine = _only_engine(found)
        definitions.append(found)
        if engine is not None:
            settings = backend_of(engine).settings
            definitions += settings.definitions.all()
            codec = settings.codec
    elif isinstance(found, Workflow | Job):
        definitions.append(found)
    elif isinstance(found, list | tuple):
        definitions += found
    else:
        msg = f"{text!r} is {_in_words(found)}: {_EXPECTED}"
        raise CommandError(msg)
    if not collect(definitions):
        msg = f"{text!r} has no workflows and no jobs{_instead(found)}: {_EXPECTED}"
        raise CommandError(msg)
    return definitions, codec


def _only_engine(module: types.ModuleType) -> Engine | None:
    from durable._shell.engine.engine import Engine  # noqa: PLC0415 - as above
    from durable._shell.engine.service import Service, engine_of  # noqa: PLC0415 - as above

    engines = {id(each): each for each in vars(module).values() if isinstance(each, Engine | Service)}
    if len(engines) != 1:
        return None
    (found,) = engines.values()
    return engine_of(found) if isinstance(found, Service) else found


def _instead(found: Any) -> str:
    if not isinstance(found, types.ModuleType):
        return ", it is empty"
    names = [name for name, value in vars(found).items() if isinstance(value, Definition)]
    if names:
        return f", only steps and transactions ({_some(names)})"
    names = [name for name in vars(found) if not name.startswith("_")]
    return f", but {_some(names)}" if names else ""


def _in_words(found: Any) -> str:
    if isinstance(found, Definition):
        return f"the {found.kind} {found.name!r}"
    if isinstance(found, type):
        return f"the class {found.__name__}"
    return f"{type(found).__name__} {printable(repr(found))[:60]}"


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


# --- functions ---------------------------------------------------------------------------------------


def _is_function(found: Any) -> bool:
    return isinstance(found, types.FunctionType | types.MethodType | functools.partial)


def _called(fn: Callable[..., Any], text: str) -> Any:
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        msg = f"{text!r} is an async function: a plain one is called, without arguments, and returns the application"
        raise CommandError(msg)
    try:
        inspect.signature(fn).bind()
    except (TypeError, ValueError) as error:
        msg = f"{text!r} cannot be called without arguments: {error}"
        raise CommandError(msg) from None
    return _guarded(f"call {text!r}", fn)


# --- importing ---------------------------------------------------------------------------------------


def _from_name(name: str) -> types.ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        msg = f"{name!r} is not the name of a module: give pkg.mod, pkg.mod:name, or a .py file"
        raise CommandError(msg)
    _look_in(os.getcwd())
    started = loaded_module(name)  # the program itself: it brought this command line along, and is not loaded twice
    if started is not None:
        return started
    try:
        with _own_output():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Of the module itself, or of one that it imports? The latter is the application's own trouble.
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            msg = f"no module is called {missing!r}{_near_module(missing)}, seen from {os.getcwd()}"
            raise CommandError(msg) from None
        raise blamed(f"import {name!r}", error) from error
    except (Exception, SystemExit) as error:
        # the application's code, which may raise anything: said as a problem of it instead of a traceback of ours
        raise blamed(f"import {name!r}", error) from error


def _from_file(path: str) -> types.ModuleType:
    file = os.path.realpath(path)
    name, suffix = os.path.splitext(os.path.basename(file))
    if suffix != ".py" or not os.path.isfile(file):
        hint = ": did you mean its .py file?" if os.path.isfile(f"{file}.py") else ""
        msg = f"there is no Python file {path}{hint}"
        raise CommandError(msg)
    if name in sys.stdlib_module_names or name == "durable":
        msg = f"{path} would hide the module {name!r} that others import: give the file another name"
        raise CommandError(msg)
    loaded = sys.modules.get(name)
    if loaded is not None and os.path.realpath(getattr(loaded, "__file__", None) or "") == file:
        return loaded
    _look_in(os.path.dirname(file))
    loader = importlib.machinery.SourceFileLoader(name, file)
    spec = importlib.machinery.ModuleSpec(name, loader, origin=file)
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        _guarded(f"import {path}", lambda: loader.exec_module(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _look_in(folder: str) -> None:
    """
    Put *folder* first on the path of imports, where it stays: applications import more when they are used.

    In a frozen program last: what it holds is not hidden by what happens to lie around.
    """
    if folder not in [os.path.realpath(each) for each in sys.path]:
        sys.path.insert(len(sys.path) if getattr(sys, "frozen", False) else 0, folder)


def _member(module: types.ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            what = f"module {module.__name__!r}" if found is module else f"{type(found).__name__} of that name"
            msg = f"{module.__name__}:{name}: {what} has no {part!r}{hint}"
            raise CommandError(msg) from None
    return found


def _near_module(missing: str) -> str:
    parent, _, last = missing.rpartition(".")
    if hasattr(sys.modules.get(parent), last):
        return f" (did you mean {parent}:{last}?)"
    folders: Any = getattr(sys.modules.get(parent), "__path__", []) if parent else [os.getcwd()]
    names = [each.name for each in pkgutil.iter_modules(folders)]
    near = difflib.get_close_matches(last, names, n=1)
    return f" (did you mean {f'{parent}.' if parent else ''}{near[0]}?)" if near else ""


# --- code that is not ours ---------------------------------------------------------------------------


@contextlib.contextmanager
def _own_output() -> Generator[None, None, None]:
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _guarded(what: str, fn: Callable[[], T]) -> T:
    try:
        with _own_output():
            return fn()
    except (Exception, SystemExit) as error:
        # the application's code, which may raise anything: said as a problem of it instead of a traceback of ours
        raise blamed(what, error) from error


def blamed(what: str, error: BaseException) -> CommandError:
    """What a command ends with when the application's own code raised *error* while we tried to do *what*."""
    if isinstance(error, SystemExit):
        reason = "it ended the program: put what runs it below `if __name__ == '__main__':`"
    else:
        reason = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    if isinstance(error, ImportError) and "relative import" in str(error):
        reason += " (it is part of a package: name it as pkg.mod)"
    place = _place_of(error)
    return CommandError(f"cannot {what}: {printable(reason)}{f' (at {place})' if place else ''}")


def _place_of(error: BaseException) -> str:
    """The last line of the application that is to blame: "file:line"."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen ", OURS, "PyInstaller" + os.sep))
        and os.sep + "importlib" + os.sep not in os.sep + frame.filename
    ]
    theirs = [frame for frame in frames if not frame.filename.startswith(_INSTALLED)]
    for frame in reversed(theirs or frames):
        return f"{frame.filename}:{frame.lineno}"
    return ""


#: Where what others wrote is: their frames say less than the application's line that called them.
_INSTALLED: Final = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))

"""
`durable check --lint`: lines of workflow code that are another thing in every replay, found by reading their source.

The source of each workflow is read, and that of the functions of the application which it names: helpers, lambdas,
static methods; not of steps, which may do what they like. Names are looked up as the code would, among objects that
are there already: nothing is called. What it cannot see (a method of a local, a name that is bound later)
`Engine(replay_always=True)` sees in tests.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import linecache
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final

from attrs import frozen

from durable._core.authoring.registry import Definitions
from durable._core.outside import ACTS, BARE, IDENTITIES, READS, OutsideObjects
from durable._core.program.functions import Workflow
from durable._core.source_places import FINE, is_library

_SETS: Final = (set, frozenset)
#: What takes the items of a set one by one, in an order that shows.
_IN_ORDER: Final = (list, tuple, enumerate, iter, zip, map, filter, dict.fromkeys, reversed)
#: What comes to the same in any order.
_IN_ANY_ORDER: Final = (*_SETS, sorted, sum, min, max, any, all, len)
_OF_SETS: Final = ("union", "intersection", "difference", "symmetric_difference", "copy")
_SORTED: Final = "sorted(...)"


@frozen(order=True)
class LintFinding:
    """
    A line that is another thing in every replay.

    Attributes:
        file, line: Where.
        workflow: Whose code it is.
        found: What it does there: "time.time()".
        instead: What to use.
    """

    file: str
    line: int
    workflow: str
    found: str
    instead: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.found} in workflow {self.workflow!r}: use {self.instead}"


@frozen
class LintReport:
    """
    What reading the source of some workflows came to.

    Attributes:
        workflows: How many were read.
        findings: By place.
        unread: Names of workflows that have no source (a frozen program, a prompt).
    """

    workflows: int
    findings: list[LintFinding]
    unread: list[str]


def lint(definitions: Definitions) -> LintReport:
    """Read the source of all workflows among *definitions*, and of those that they name."""
    tables = READS, BARE, ACTS, IDENTITIES
    _import_all(chain(*tables))
    outside = OutsideObjects(*tables)
    pending = [each for each in definitions.all() if isinstance(each, Workflow)]
    seen: set[int] = {id(each) for each in pending}
    findings: dict[tuple[str, int, str], LintFinding] = {}
    unread: list[str] = []
    count = 0
    while pending:
        workflow = pending.pop()
        reading = _Reading(workflow, outside)
        if not reading.read():
            unread.append(workflow.name)
            continue
        count += 1
        for found in reading.findings:
            findings.setdefault((found.file, found.line, found.found), found)
        for each in reading.workflows:
            if id(each) not in seen:
                seen.add(id(each))
                pending.append(each)
    return LintReport(count, sorted(findings.values()), sorted(unread))


class _Reading:
    """The code of one workflow, function by function."""

    def __init__(self, workflow: Workflow[..., Any], outside: OutsideObjects) -> None:
        self.workflow = workflow
        self.outside = outside
        self.findings: list[LintFinding] = []
        #: Workflows that it names.
        self.workflows: list[Workflow[..., Any]] = []
        self._package = (getattr(workflow.fn, "__module__", None) or "").partition(".")[0]
        self._pending: list[types.FunctionType] = []
        self._seen: set[types.CodeType] = set()

    def read(self) -> bool:
        """Read it; False if it has no source."""
        fn = inspect.unwrap(self.workflow.fn)
        if not isinstance(fn, types.FunctionType) or not self._read(fn):
            return False
        while self._pending:
            self._read(self._pending.pop())  # a helper without source has nothing that could be shown
        return True

    def names(self, value: Any) -> None:
        """The code names *value*: what is a function of the application is read as well."""
        if isinstance(value, Workflow):
            self.workflows.append(value)
        elif isinstance(value, (staticmethod, classmethod)):
            self.names(value.__func__)
        elif isinstance(value, types.FunctionType):
            fn = inspect.unwrap(value)
            if isinstance(fn, types.FunctionType) and self._is_of_the_application(fn):
                self._pending.append(fn)

    def found(self, file: str, node: ast.expr, found: str, instead: str) -> None:
        """Note a finding, unless the line says that it is fine."""
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if not any(FINE in linecache.getline(file, line) for line in lines):
            self.findings.append(LintFinding(file, node.lineno, self.workflow.name, found, instead))

    def _read(self, fn: types.FunctionType) -> bool:
        if fn.__code__ in self._seen:
            return True
        self._seen.add(fn.__code__)
        try:
            lines, first = inspect.getsourcelines(fn)
            function = _parsed("".join(lines), first)
        except (OSError, SyntaxError):  # a frozen program; a lambda in the middle of an expression
            return False
        body = function.body if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) else [function]
        visitor = _Visitor(self, fn, function)
        for statement in body:  # of a lambda: the statement that it is in
            visitor.visit(statement)
        return True

    def _is_of_the_application(self, fn: types.FunctionType) -> bool:
        if not is_library(fn.__code__.co_filename):
            return True
        return (fn.__module__ or "").partition(".")[0] == self._package != "durable"


class _Visitor(ast.NodeVisitor):
    """The body of one function."""

    def __init__(self, reading: _Reading, fn: types.FunctionType, function: ast.stmt) -> None:
        self._reading = reading
        self._file = fn.__code__.co_filename
        self._scope = _scope_of(fn, function)
        #: Expressions whose items are taken in any order, all the same.
        self._unordered: set[ast.AST] = set()
        #: Locals that are sets and nothing else.
        self._sets: set[str] = set()
        for _ in range(2):  # one may be made of another
            self._sets = self._locals_that_are_sets(function)

    # --- names ---------------------------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> None:
        self._named(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self.value_of(node) is None:
            self.visit(node.value)
        else:
            self._named(node)

    def _named(self, node: ast.expr) -> None:
        value = self.value_of(node)
        known = self._reading.outside.named(value)
        if known is None:
            self._reading.names(value)
        elif known.name in READS:
            call = "" if known.name.startswith("os.environ") else "()"
            self._reading.found(self._file, node, f"{known.name}{call}", known.instead)

    def value_of(self, node: ast.expr) -> Any:
        """The object that *node* names; None if that cannot be told without running code."""
        if isinstance(node, ast.Name):
            return self._scope.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.value_of(node.value)
            if isinstance(owner, types.ModuleType):
                return getattr(owner, node.attr, None)
            if isinstance(owner, type):
                if owner.__module__ in ("datetime", "builtins"):
                    return getattr(owner, node.attr, None)
                return inspect.getattr_static(owner, node.attr, None)
        return None

    # --- calls ---------------------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        value = self.value_of(node.func)
        known = self._reading.outside.named(value)
        if known is not None and known.name not in READS:
            bare = not node.args and not node.keywords
            if bare or known.name not in BARE:
                name = known.name.removeprefix("builtins.")
                self._reading.found(self._file, node, f"{name}()", known.instead)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "pop" and self.is_set(node.func.value):
            self._reading.found(self._file, node, "set.pop()", f"a list, or {_SORTED}")
        if _is_among(value, _IN_ANY_ORDER):
            self._unordered.update(node.args)
        elif self._takes_in_order(node, value):
            if node in self._unordered:
                self._unordered.update(node.args)
            for argument in node.args:
                self._iterated(argument)
        self.generic_visit(node)

    def _takes_in_order(self, node: ast.Call, value: Any) -> bool:
        if isinstance(node.func, ast.Attribute) and value is None:
            return node.func.attr in ("join", "extend")  # of a str, of a list
        return _is_among(value, _IN_ORDER) or _module_of(value).startswith("durable.")  # for_each

    # --- sets ----------------------------------------------------------------------------------------

    def visit_For(self, node: ast.For) -> None:
        self._iterated(node.iter)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        self._iterated(node.value)
        self.generic_visit(node)

    def visit_Set(self, node: ast.Set) -> None:
        for each in node.elts:
            self.visit(each.value if isinstance(each, ast.Starred) else each)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehended(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehended(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehended(node)

    def _comprehended(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp) -> None:
        if node not in self._unordered:
            for each in node.generators:
                self._iterated(each.iter)
        self.generic_visit(node)

    def _iterated(self, node: ast.expr) -> None:
        if node not in self._unordered and self.is_set(node):
            self._reading.found(self._file, node, "the order of a set", _SORTED)

    def _locals_that_are_sets(self, function: ast.AST) -> set[str]:
        values: dict[ast.AST, ast.expr | None] = {}  # None: it stays what it is
        for node in ast.walk(function):
            match node:
                case ast.Assign(targets=targets, value=value):
                    values |= dict.fromkeys(targets, value)
                case ast.AnnAssign(target=target, value=value):
                    values[target] = value
                case ast.AugAssign(target=target):
                    values[target] = None
                case _:
                    pass
        made: dict[str, list[bool]] = {}
        for name, node in _bindings_in(function):
            if node not in values:
                made.setdefault(name, []).append(False)
            elif (value := values[node]) is not None:
                made.setdefault(name, []).append(self.is_set(value))
        return {name for name, are_sets in made.items() if all(are_sets)}

    def is_set(self, node: ast.expr) -> bool:
        """Whether *node* makes a set, or names a local that is nothing else. One of numbers has an order of its own."""
        match node:
            case ast.Set():
                return not all(isinstance(each, ast.Constant) and isinstance(each.value, int) for each in node.elts)
            case ast.SetComp():
                return True
            case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
                return self.is_set(left) or self.is_set(right)
            case ast.Call(func=ast.Attribute(value=owner, attr=name)) if name in _OF_SETS:
                return self.is_set(owner)
            case ast.Call(func=func):
                return _is_among(self.value_of(func), _SETS)
            case ast.Name(id=name):
                return name in self._sets
            case _:
                return False

    # --- what is not workflow code ---------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._nested(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._nested(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Its methods run when they are called, with what nobody can tell from here."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def _nested(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        makers = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
        if any(_module_of(self.value_of(maker)).startswith("durable.") for maker in makers):
            return  # a step of its own
        for statement in node.body:
            self.visit(statement)


def _parsed(source: str, first: int) -> ast.stmt:
    """The statement that *source* is, which may be indented; its first line is line *first* of its file."""
    if not source[0].isspace():
        return ast.increment_lineno(ast.parse(source).body[0], first - 1)
    around = ast.parse(f"if True:\n{source}").body[0]
    assert isinstance(around, ast.If)
    return ast.increment_lineno(around.body[0], first - 2)


def _is_among(value: Any, known: tuple[Any, ...]) -> bool:
    """Whether *value* is one of Python's own functions and classes; others are not asked what they equal."""
    return isinstance(value, (type, types.BuiltinFunctionType)) and value in known


def _module_of(value: Any) -> str:
    return (value.__module__ or "") if isinstance(value, types.FunctionType) else ""


def _scope_of(fn: types.FunctionType, function: ast.AST) -> Mapping[str, Any]:
    """What names stand for in *fn*: globals, closure and builtins, but for what it binds itself; and its imports."""
    scope = {**vars(builtins), **fn.__globals__}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            scope[name] = cell.cell_contents
        except ValueError:  # not bound yet
            scope.pop(name, None)
    for name, _ in _bindings_in(function):
        scope.pop(name, None)
    for node in ast.walk(function):
        match node:
            case ast.Import(names=names):
                for each in names:
                    top = each.name.partition(".")[0]
                    scope[each.asname or top] = sys.modules.get(each.name if each.asname else top)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for each in names:
                    scope[each.asname or each.name] = getattr(sys.modules.get(module), each.name, None)
            case _:
                pass
    return scope


def _bindings_in(function: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Names that *function* binds, imports apart; and by which node."""
    for node in ast.walk(function):
        match node:
            case (
                ast.Name(id=name, ctx=ast.Store() | ast.Del())
                | ast.arg(arg=name)
                | ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                yield name, node
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                if node is not function:
                    yield name, node
            case _:
                pass


def _import_all(names: Iterable[str]) -> None:
    """Import the standard modules of *names*: a function may import them itself, when it is called."""
    for name in names:
        parts = name.split(".")[:-1]
        while parts and parts[0] in sys.stdlib_module_names:
            try:
                importlib.import_module(".".join(parts))
                break
            except ImportError:  # of a class, or not on this system
                parts.pop()

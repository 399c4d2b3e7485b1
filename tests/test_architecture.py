"""
The shape of the code, read from its source with `ast`: nothing of `durable` is imported here.

Each test is one rule of the design (pure core, thin shell, imports one way, constant SQL). The
checkers have tests of their own at the end, because a checker that finds nothing proves nothing.
"""

import ast
import graphlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).parents[1]

# What decides must not look at the world: module -> the one file of the core that may import it, and why.
WORLD = {
    "aiosqlite": None,
    "anyio": None,
    "asyncio": None,
    "concurrent": None,
    "http": None,
    "logging": "flow.py",  # defines the logger that is silent during replay
    "multiprocessing": None,
    "secrets": None,
    "select": None,
    "signal": None,
    "socket": None,
    "sqlite3": "failures.py",  # the names of its exceptions, to rebuild them from records
    "structlog": None,
    "subprocess": None,
    "tempfile": None,
    "threading": "current_driver.py",  # threading.local: which driver is in charge in this thread
    "time": None,
}
CLOCKS_AND_DICE = {
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "os.getrandom",
    "os.urandom",
    "uuid.uuid1",
    "uuid.uuid4",
}
# What a person types at the debugger's prompt is evaluated there, and nothing that comes out of a file.
EVALUATES = {"durable/_debug/expressions.py": {"eval"}}
DECODES_TO_CODE = {"cloudpickle", "dill", "jsonpickle", "marshal", "pickle", "shelve", "yaml"}


# --- reading the source -------------------------------------------------------------------------


@frozen(eq=False)
class Module:
    """One source file and its dotted name; *names* maps local names to what they were imported from."""

    name: str
    path: Path
    tree: ast.Module
    names: dict[str, str]

    @property
    def package(self) -> str:
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    @property
    def is_core(self) -> bool:
        return self.name.startswith("durable._core")

    def at(self, node: ast.AST) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 0)}"


def read(path: Path, root: Path = ROOT) -> Module:
    shown = path.relative_to(root)
    dotted = ".".join(shown.with_suffix("").parts).removesuffix(".__init__")
    return parse(path.read_text(encoding="utf-8"), dotted, shown)


def parse(source: str, name: str = "durable.sample", path: Path = Path("durable/sample.py")) -> Module:
    module = Module(name, path, ast.parse(source, filename=str(path)), {})
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                module.names[bound] = alias.name if alias.asname else bound
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module.names[alias.asname or alias.name] = f"{source_of(module, node)}.{alias.name}"
    return module


def source_of(module: Module, node: ast.ImportFrom) -> str:
    """
    The absolute dotted name a `from ... import` reads from.
    """
    if not node.level:
        return node.module or ""
    base = module.package.split(".")[: len(module.package.split(".")) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def imports(module: Module, *, typing_only: bool) -> Iterator[tuple[ast.stmt, str]]:
    """
    Everything imported anywhere in *module*, functions included, as dotted names.

    *typing_only*: with the imports below `if TYPE_CHECKING:`, which never happen at run time.
    """
    pending: list[ast.AST] = [module.tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, f"{source_of(module, node)}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.If) and not typing_only and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def references(module: Module) -> Iterator[tuple[ast.expr, str]]:
    """
    Every use of an imported name, called or not, as a dotted name: `dt.datetime.now` after `import datetime as dt`.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name | ast.Attribute) and (dotted := resolve(module, node)):
            yield node, dotted


def resolve(module: Module, node: ast.expr) -> str | None:
    match node:
        case ast.Name(id=name):
            return module.names.get(name)
        case ast.Attribute(value=value, attr=attr):
            base = resolve(module, value)
            return base and f"{base}.{attr}"
    return None


def calls(module: Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))


def modules() -> list[Module]:
    return [read(path) for path in sorted((ROOT / "durable").rglob("*.py"))]


@pytest.fixture(scope="module", name="source")
def read_source() -> list[Module]:
    return modules()


@pytest.fixture(scope="module", name="core")
def read_core(source: list[Module]) -> list[Module]:
    core = [module for module in source if module.is_core and module.path.name != "__init__.py"]
    assert core, "durable/_core is empty: these tests would prove nothing"
    return core


def report(problems: Iterable[str]) -> None:
    found = sorted(set(problems))
    assert not found, "\n" + "\n".join(found)


# --- the rules of the core ----------------------------------------------------------------------


def test_the_core_imports_nothing_of_the_shell(core):
    """
    Imports run one way: `_core` knows neither `_shell` nor the public face, not even for annotations.
    """
    report(
        f"{module.at(node)}: imports {name}"
        for module in core
        for node, name in imports(module, typing_only=True)
        if name.startswith("durable.") and not name.startswith(("durable._core", "durable.errors"))
    )


def test_the_core_imports_no_clock_loop_log_or_database(core):
    """
    The core decides and the shell does: no module that reads or changes the world is imported there.
    """
    report(world_imports(core))


def world_imports(core: Iterable[Module]) -> Iterator[str]:
    for module in core:
        for node, name in imports(module, typing_only=True):
            top = name.partition(".")[0]
            if top in WORLD and WORLD[top] != module.path.name:
                yield f"{module.at(node)}: imports {name}"


def test_the_core_uses_threading_for_a_thread_local_only(core):
    """
    `current_driver` may ask which driver is in charge in this thread, and may not start or lock anything.
    """
    report(
        f"{module.at(node)}: uses {name}"
        for module in core
        for node, name in references(module)
        if name.startswith("threading.") and name != "threading.local"
    )


def test_the_core_reads_no_clock_and_throws_no_dice(core):
    """
    Time and randomness arrive as arguments, so that replay gets the same answer; only `random.Random(seed)` is used.
    """
    report(impurities(core))


def impurities(core: Iterable[Module]) -> Iterator[str]:
    for module in core:
        for node, name in references(module):
            if name in CLOCKS_AND_DICE:
                yield f"{module.at(node)}: uses {name}"
            if name.startswith("random.") and name.split(".")[1] != "Random":
                yield f"{module.at(node)}: uses {name}"
        for call in calls(module):
            if resolve(module, call.func) == "random.Random" and not (call.args or call.keywords):
                yield f"{module.at(call)}: random.Random() without a seed"


# --- rules for all of the package ---------------------------------------------------------------


# The rooms, from the ground up: each may import those above it in this list, and itself. Imports for type checkers
# count, too: a room that needs a name of a higher one does not stand where it should.
ROOMS = [
    "durable.errors",
    "durable._core.statuses",
    "durable._core.durations",
    "durable._core.run_ids",
    "durable._core.source_places",
    "durable._core.scope_check",
    "durable._core.light_frozen",
    "durable._core.light_tuples",
    "durable._core.outside",
    "durable._core.codec",
    "durable._core.policies",
    "durable._core.program",
    "durable._core.authoring",
    "durable._core.ports",
    "durable._core.journal",
    "durable._core.run",
    "durable._core.recorded",
    "durable._core.admission",
    "durable._core.suspicion",
    "durable._core.supervision",
    "durable._core",
    "durable._shell.log",
    "durable._shell.clock",
    "durable._shell.switching",
    "durable._shell.threads",
    "durable._shell.loops",
    "durable._shell.storage",
    "durable._shell.ownership",
    "durable._shell.rows",
    "durable._shell.reads",
    "durable._shell.reports",
    "durable._shell.claims",
    "durable._shell.writes",
    "durable._shell.importing",
    "durable._shell.requests",
    "durable._shell.backend",
    "durable._shell.attempts",
    "durable._shell.commits",
    "durable._shell.turns",
    "durable._shell.handles",
    "durable._shell.client",
    "durable._shell.tasks",
    "durable._shell.engine",
    "durable._shell",
    # Another driver: it takes attempts and values of the shell, and nothing of the journal's file. Its own rooms are
    # those of the shell in small: what travels, what workers share, runs, attempts, what users hold.
    "durable.temporal._wire",
    "durable.temporal._setup",
    "durable.temporal._limits",
    "durable.temporal._driving",
    "durable.temporal._batches",
    "durable.temporal._transactions",
    "durable.temporal._schedules",
    "durable.temporal._attempts",
    "durable.temporal._engine",
    "durable.temporal._histories",
    "durable.temporal",
    "durable._debug",
    "durable._cli.terminal",
    "durable._cli.journals",
    "durable._cli.drawing",
    "durable._cli.applications",
    "durable._cli.clusters",
    "durable._cli.table",
    "durable._cli.commands.look",
    "durable.web.source",
    "durable.web.journal",
    "durable.web.cluster",
    "durable.web.rendering",
    "durable.web.colouring",
    "durable.web.guard",
    "durable.web.call",
    "durable.web.moments",
    "durable.web.timeline",
    "durable.web.pages",
    "durable.web.application",
    "durable.web",
    "durable._cli.commands.debug",
    "durable._cli.commands.keep_house",
    "durable._cli.commands.change",
    "durable._cli.commands",
    "durable._cli.main",
    "durable._cli",
    "durable._pyinstaller",
    "durable._face",
    "durable.codecs",
    "durable.metrics",
    "durable.telemetry",
    "durable.pydantic_ai",
    "durable.__main__",
    "durable.testing.loop",
    "durable.testing.journals",
    "durable.testing._crash",
    "durable.testing",
    "durable",
]
# What runs inside a transaction, or is read with: it knows no event loop, no log and no clock.
ON_A_THREAD = tuple(
    f"durable._shell.{room}" for room in ("rows", "reads", "reports", "claims", "writes", "importing", "requests")
)


def room_of(name: str) -> str:
    return next(room for room in sorted(ROOMS, key=len, reverse=True) if f"{name}.".startswith(f"{room}."))


def test_rooms_import_those_below_them(source):
    """
    Rooms stand in one order, and no import climbs, not even one for type checkers.
    """
    floor = {room: number for number, room in enumerate(ROOMS)}
    report(
        f"{module.at(node)}: {room_of(module.name)} imports {name}, which stands above it"
        for module in source
        for node, name in imports(module, typing_only=True)
        if name.startswith("durable.")
        and room_of(module.name) != "durable"
        and floor[room_of(name)] > floor[room_of(module.name)]
    )


def test_what_runs_in_a_transaction_knows_no_loop(source):
    """
    Functions of a connection run on a thread: an event loop, a log or a clock has no business there.
    """
    report(
        f"{module.at(node)}: imports {name}"
        for module in source
        if room_of(module.name) in ON_A_THREAD
        for node, name in imports(module, typing_only=True)
        if name.partition(".")[0] in ("asyncio", "anyio", "structlog", "time", "threading")
        or name.startswith(("durable._shell.log", "durable._shell.clock"))
    )


def test_every_room_says_where_to_start(source):
    """
    The docstring of a private package ends with the modules to read first, and they exist.
    """
    report(lost(source))


def lost(source: Iterable[Module]) -> Iterator[str]:
    known = {module.name for module in source}
    for room in source:
        if room.path.name != "__init__.py" or "._" not in room.name or "_pyinstaller" in room.name:
            continue
        last = (ast.get_docstring(room.tree) or "").split("\n\n")[-1]
        if not last.startswith("Start with `"):
            yield f"{room.path}: its docstring does not end with 'Start with `module`, ...'"
        yield from (
            f"{room.path}: says to read `{name}`, which is not there"
            for name in re.findall("`(.+?)`", last)
            if f"{room.name}.{name}" not in known
        )


def test_modules_do_not_import_each_other_in_a_circle(source):
    """
    The import graph has no cycle, imports inside functions included (they are how cycles are held open).
    """
    report(circles(source))


def circles(source: Iterable[Module]) -> Iterator[str]:
    known = {module.name for module in source}
    graph = {
        module.name: {
            # `from durable._core import ops` reads the module ops, or a name of the package itself
            name if name in known else name.rpartition(".")[0]
            for _, name in imports(module, typing_only=False)
            if name in known or name.rpartition(".")[0] in known
        }
        - {module.name}
        for module in source
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        # graphlib walks from the imported to the importing one
        yield "import cycle: " + " -> ".join(reversed(error.args[1]))


def test_errors_import_nothing_of_the_package(source):
    """
    `durable.errors` is at the bottom: every other module may import it.
    """
    report(
        f"{module.at(node)}: imports {name}"
        for module in source
        if module.name == "durable.errors"
        for node, name in imports(module, typing_only=True)
        if name.startswith("durable")
    )


def test_opening_a_file_never_executes_code(source):
    """
    Nothing that turns bytes into code or objects of any class is used: no pickle, marshal, yaml, eval, exec, compile.
    """
    report(code_from_bytes(source))


def code_from_bytes(source: Iterable[Module]) -> Iterator[str]:
    for module in source:
        for node, name in imports(module, typing_only=True):
            if name.partition(".")[0] in DECODES_TO_CODE:
                yield f"{module.at(node)}: imports {name}"
        for node in ast.walk(module.tree):
            allowed = EVALUATES.get(module.path.as_posix(), set())
            if isinstance(node, ast.Name) and node.id in {"eval", "exec", "compile", "__import__"} - allowed:
                yield f"{module.at(node)}: uses {node.id}"


def test_the_library_does_not_print(source):
    """
    A library has no terminal of its own: facts go to the log.
    """
    report(
        f"{module.at(call)}: prints"
        for module in source
        for call in calls(module)
        if isinstance(call.func, ast.Name) and call.func.id == "print"
    )


def test_the_library_leaves_logging_and_signals_to_the_application(source):
    """
    The engine configures no logging, and installs no signal handler but while `serve()` is awaited. A service passes
    signals on to the handlers that are there, and adds none where there is none.
    """
    rooms = "durable/_shell/engine"
    excepted = {f"{rooms}/termination.py", f"{rooms}/serving.py"}
    taken = {
        "structlog.configure",
        "structlog.configure_once",
        "logging.basicConfig",
        "logging.config",
        "signal.signal",
    }
    report(
        f"{module.at(node)}: {name}"
        for module in source
        if module.path.as_posix() not in excepted
        for node, name in references(module)
        if name in taken
    )
    report(
        f"{module.at(call)}: add_signal_handler"
        for module in source
        for call in calls(module)
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_signal_handler"
    )


def test_sql_is_constant(source):
    """
    What is executed is written in the source: no value is ever formatted into SQL.

    Constants may be joined, repeated ("?, " * n) and chosen between. A function that passes SQL on must
    call its parameter `sql`; its callers are then held to the same rule. What users write is theirs: the statements
    of their transactions, and of their own tables.
    """
    source = [module for module in source if str(module.path) not in FROM_TABLES]
    report(problem for problem in built_sql(source) if re.sub(r":\d+: .*:", ":", problem) not in USERS_OWN)


# --- the SQL check ------------------------------------------------------------------------------

# Makes its statements of a table of constants that stands in it, one for each table of the journal.
FROM_TABLES = {"durable/_shell/storage/seals.py"}
USERS_OWN = {
    "durable/temporal/_transactions/app_transactions.py: sql",
    "durable/temporal/_transactions/tables.py: sql",
    "durable/testing/_crash/lives.py: tables",
    "durable/_shell/attempts/transaction.py: *as_sql(sql, parameters)",
    "durable/_shell/attempts/transaction.py: *as_many(sql, parameters)",
    "durable/_shell/attempts/transaction.py: text",
    "durable/_shell/engine/application_schema.py: statement",
}
EXECUTES = {"execute", "executemany", "executescript", "execute_fetchall", "execute_insert"}
KEEPS_CONSTANT = {
    "join",
    "format",
    "strip",
    "lstrip",
    "rstrip",
    "removesuffix",
    "removeprefix",
    "replace",
    "splitlines",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Scope = tuple[ast.AST, ...]  # the module, then the functions around an expression


def built_sql(source: Iterable[Module]) -> Iterator[str]:
    source = list(source)
    # Constants are found by name over the whole package, so an imported one is checked where it is written.
    constants: dict[str, list[ast.expr]] = {}
    for module in source:
        for name, value in bindings(module.tree.body):
            constants.setdefault(name, []).append(value)

    passes_on = functions_that_execute(source)
    for module in source:
        for scope, call in scoped_calls(module.tree, (module.tree,)):
            sql = sql_of(call, passes_on)
            if sql is not None and not is_constant(sql, scope, constants, frozenset()):
                yield f"{module.at(call)}: executes SQL that is not constant: {ast.unparse(sql)}"


def functions_that_execute(source: Iterable[Module]) -> dict[str, int]:
    """
    Names of functions that execute their parameter `sql`, directly or through others -> its index in a call.
    """
    found = dict.fromkeys(EXECUTES, 0)
    takers: list[tuple[int, ast.AST, str]] = []
    for module in source:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [a.arg for a in [*node.args.posonlyargs, *node.args.args] if a.arg not in {"self", "cls"}]
                if "sql" in names:
                    takers.append((names.index("sql"), node, node.name))
    while True:
        more = {
            name: index
            for index, node, name in takers
            if name not in found
            and any(
                isinstance(used, ast.Name) and used.id == "sql"
                for call in ast.walk(node)
                if isinstance(call, ast.Call) and (sql := sql_of(call, found)) is not None
                for used in ast.walk(sql)
            )
        }
        if not more:
            return found
        found |= more


def sql_of(call: ast.Call, passes_on: dict[str, int]) -> ast.expr | None:
    """
    The argument of *call* that is executed as SQL, if any.
    """
    called = getattr(call.func, "attr", None) or getattr(call.func, "id", "")
    if called not in passes_on:
        return None
    given = [keyword.value for keyword in call.keywords if keyword.arg == "sql"] or call.args[passes_on[called] :]
    return given[0] if given else None


def scoped_calls(node: ast.AST, scope: Scope) -> Iterator[tuple[Scope, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield scope, child
        yield from scoped_calls(child, (*scope, child) if isinstance(child, Function) else scope)


def bindings(body: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    """
    Every expression a name is bound to, or that is added to it, below *body* but outside nested functions.
    """
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                continue
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    yield from ((name.id, value) for name in ast.walk(target) if isinstance(name, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case (
                ast.AugAssign(target=ast.Name(id=name), value=value)
                | ast.NamedExpr(target=ast.Name(id=name), value=value)
            ):
                yield name, value
            case ast.For(target=target, iter=value) | ast.AsyncFor(target=target, iter=value):
                yield from ((name.id, value) for name in ast.walk(target) if isinstance(name, ast.Name))
            case ast.comprehension(target=target, iter=value):
                yield from ((name.id, value) for name in ast.walk(target) if isinstance(name, ast.Name))
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append" | "extend" | "insert"), args=args):
                yield name, args[-1]
        yield from bindings(ast.iter_child_nodes(node))


def is_constant(node: ast.expr, scope: Scope, constants: dict[str, list[ast.expr]], seen: frozenset[str]) -> bool:
    def same(*parts: ast.expr | None) -> bool:
        return all(part is None or is_constant(part, scope, constants, seen) for part in parts)

    match node:
        case ast.Constant():
            return True
        case ast.JoinedStr(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return same(*parts)
        case ast.FormattedValue(value=value) | ast.Starred(value=value):
            return same(value)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return same(left) or same(right)  # repeated, not filled
        case ast.BinOp(left=left, right=right):
            return same(left, right)
        case ast.IfExp(body=body, orelse=orelse):
            return same(body, orelse)
        case ast.BoolOp(values=values):
            return same(*values)
        case ast.Dict(keys=keys, values=values):
            return same(*keys, *values)
        case ast.Subscript(value=value):
            return same(value)  # whichever is chosen, all are constant
        case ast.ListComp(elt=elt) | ast.GeneratorExp(elt=elt) | ast.SetComp(elt=elt):
            return is_constant(elt, (*scope, node), constants, seen)
        case ast.Call(func=ast.Attribute(value=value, attr="values" | "items" | "keys")):
            return same(value)
        case ast.Call(func=ast.Attribute(value=value, attr=attr), args=args, keywords=keywords):
            return attr in KEEPS_CONSTANT and same(value, *args, *(k.value for k in keywords))
        case ast.Name(id=name):
            return name_is_constant(name, scope, constants, seen)
        case ast.Attribute(attr=name):  # a constant of a module or class, as schema.INSERT_EVENT
            return name.isupper() and name_is_constant(name, (), constants, seen)
    return False


def name_is_constant(name: str, scope: Scope, constants: dict[str, list[ast.expr]], seen: frozenset[str]) -> bool:
    if name in seen:  # bound in terms of itself: the other bindings decide
        return True
    for depth in range(len(scope) - 1, -1, -1):
        around = scope[depth]
        if isinstance(around, Function):
            parameters = [*around.args.posonlyargs, *around.args.args, *around.args.kwonlyargs]
            if name in [parameter.arg for parameter in parameters]:
                return name == "sql"  # the callers are checked instead
        body = around.body if isinstance(around, ast.Module | Function) else ast.iter_child_nodes(around)
        values = [value for bound, value in bindings(body if isinstance(body, Iterable) else [body]) if bound == name]
        if values:
            return all(is_constant(value, scope[: depth + 1], constants, seen | {name}) for value in values)
    values = constants.get(name, [])
    return bool(values) and all(is_constant(value, (), constants, seen | {name}) for value in values)


# --- the checkers are checked -------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        'tx.execute(f"DELETE FROM {table}")',
        'tx.execute("DELETE FROM %s" % table)',
        'tx.execute("DELETE FROM {}".format(table))',
        'tx.execute("DELETE FROM " + table)',
        'tx.executemany(f"INSERT INTO {table} VALUES (?)", [(1,)])',
        'q = "DELETE FROM "; q += table; tx.execute(q)',
        'q = f"DELETE FROM {table}"; tx.execute(q)',
        'parts = ["a"]; parts.append(table); tx.execute(" ".join(parts))',
        "tx.execute(table)",
        'run_it(tx, f"DELETE FROM {table}")',
        'run_it(tx, sql=f"DELETE FROM {table}")',
        'for t in [table]: tx.execute(f"DROP TABLE {t}")',
        'tx.execute(" ".join(f"DROP {t}" for t in tables()))',
        "tx.execute(rows[0])",
    ],
)
def test_built_sql_is_found(body):
    """
    Every way to format a value into SQL that we could think of is reported.
    """
    sample = f"def run_it(tx, sql): tx.execute(sql)\ndef f(tx, table, rows):\n    {body}"
    assert len(list(built_sql([parse(sample)]))) == 1


@pytest.mark.parametrize(
    "body",
    [
        'tx.execute("SELECT ?", (table,))',
        "tx.execute(SELECT, (table,))",
        "tx.execute(schema.SELECT, (table,))",
        'tx.execute(f"{SELECT} LIMIT ?", (table,))',
        'tx.execute(SELECT + (" DESC" if table else " ASC"))',
        'tx.execute("SELECT * FROM runs WHERE id IN (" + ", ".join(["?"] * len(rows)) + ")", rows)',
        'parts = ["a = ?"]; parts.append("b = ?"); tx.execute(" AND ".join(parts))',
        'q = SELECT; q += " LIMIT 1"; tx.execute(q)',
        "for statement in TABLES: tx.execute(statement)",
        "for name, statement in VIEWS.items(): tx.execute(statement)",
        "tx.execute(VIEWS[table])",
        'run_it(tx, "SELECT 1")',
    ],
)
def test_constant_sql_is_accepted(body):
    """
    Constants may be joined, repeated and chosen between without a complaint.
    """
    sample = (
        'SELECT = "SELECT 1"\nTABLES = ("CREATE TABLE t (a)",)\nVIEWS = {"v": "CREATE VIEW v AS SELECT 1"}\n'
        f"def run_it(tx, sql): tx.execute(sql)\ndef f(tx, table, rows):\n    {body}"
    )
    assert list(built_sql([parse(sample)])) == []


@pytest.mark.parametrize(
    "line, found",
    [
        ("import datetime as dt; dt.datetime.now()", 1),
        ("from datetime import datetime; clock = datetime.utcnow", 1),
        ("from datetime import date; date.today()", 1),
        ("import os; os.urandom(8)", 1),
        ("from uuid import uuid4; uuid4()", 1),
        ("import random; random.random()", 1),
        ("from random import choice; choice([1])", 1),
        ("from random import Random; Random()", 1),
        ("import random; random.Random(7).random()", 0),
        ("from uuid import UUID; UUID(int=7)", 0),
        ("from datetime import UTC, datetime; datetime.fromtimestamp(0, UTC)", 0),
    ],
)
def test_clocks_and_dice_are_found(line, found):
    """
    A clock or dice is found under any name it was imported as; seeded and given values are not reported.
    """
    assert len(list(impurities([parse(line)]))) == found


@pytest.mark.parametrize(
    "line, file, found",
    [
        ("import asyncio", "ops.py", 1),
        ("from anyio import to_thread", "ops.py", 1),
        ("def f():\n    import time", "ops.py", 1),
        ("import sqlite3", "codec.py", 1),
        ("import sqlite3", "failures.py", 0),
        ("import logging", "flow.py", 0),
        ("import threading", "current_driver.py", 0),
        ("from . import time", "ops.py", 0),
    ],
)
def test_imports_of_the_world_are_found(line, file, found):
    """
    A forbidden import is found inside functions too, and allowed in its one named file only.
    """
    sample = parse(line, f"durable._core.{file.removesuffix('.py')}", Path("durable/_core") / file)
    assert len(list(world_imports([sample]))) == found


def test_import_cycles_are_found():
    """
    A cycle is reported however it is written, and imports for type checkers alone are none.
    """
    ops = parse("from durable._core.run.strand import drive", "durable._core.run.ops", Path("durable/_core/run/ops.py"))
    late = "def f():\n    from . import ops"
    typing_only = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import ops"
    for text, found in [(late, 1), (typing_only, 0)]:
        strand = parse(text, "durable._core.run.strand", Path("durable/_core/run/strand.py"))
        assert len(list(circles([ops, strand]))) == found


@pytest.mark.parametrize("line", ["import pickle", "from yaml import load", "eval('1')", "run = exec"])
def test_code_from_bytes_is_found(line):
    """
    Imports of decoders that build any object, and every use of eval and exec, are reported.
    """
    assert len(list(code_from_bytes([parse(line)]))) == 1


@pytest.mark.parametrize(
    "docstring, found",
    [
        ("A room.", "does not end with"),
        ("A room.\n\nStart with `gone`, then `here`.", "`gone`, which is not there"),
    ],
)
def test_rooms_without_a_way_in_are_found(docstring, found):
    """
    A docstring that names nothing to start with is found, and so is one that names what was moved away.
    """
    room = parse(f'"""{docstring}"""', "durable._sample", Path("durable/_sample/__init__.py"))
    here = parse("", "durable._sample.here", Path("durable/_sample/here.py"))
    problems = list(lost([room, here]))
    assert len(problems) == 1
    assert found in problems[0]

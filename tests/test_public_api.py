"""
The public surface is the documented one: nothing missing, nothing that nobody was told about.
"""

import ast
import importlib
import inspect
import pickle
import re
import subprocess
import sys
from importlib import metadata

import pytest

import durable
from durable import _face, errors
from durable._shell.engine.engine import EngineOptions

# The design's sections 2 to 5, in its order. A new public name is added here and in the documents.
DOCUMENTED = """
    workflow step transaction job
    call gather race timeout for_each as_completed wait_first poll_until
    sleep sleep_until wait_for callback Callback start signal_run cancel_run settle continue_as Return
    Flow Op Winner Settled Outcomes NamedOutcomes GroupFailedError Signal Request Asked RunView StepOutcome
    Retry RetryAfter Snooze Fatal by_arguments
    now uuid4 random patched set_attributes logger current
    Engine Client Service Run RunInfo Arguments WaitInfo StepInfo AttemptInfo Queue Rate Limit
    FromThread RunFromThread
    Schedule ScheduleHandle ScheduleInfo
    Batch BatchInfo current_batch
    Finished ValueType ValueCodec FailedHook QueueHandle LimitHandle LimitInfo SlotInfo
    StepContext Transaction context cursor memo snooze
    AsyncTransaction Caps Child Command RunOp EngineEvent HistoryEvent QueueInfo Stats Health
    replay Replay ReplayedCommand RunHistory read_histories CheckReport CheckedRun aliases
    command_line saga CompensationError retry_http Definition resource emit progress Progress RunStream StreamItem
    Middleware StepCall Activation AttemptFailed RunFailure RunSuccess RunCancellation DryRun what_if
    RunHistory read_histories Redacted Imported
""".split()  # noqa: SIM905 - a list of words, in lines that mean something

# What the design's section 4 says may be called, as far as it is there, and what callers read: one line a topic.
OFFERED = {
    "Engine": """
        path open aclose drain idle serve health wait_closed failure
        start start_many run get find runs counts transact transaction read
        queue limit limits schedule schedules batch get_batch batches complete fail heartbeat
        from_thread events stats prune scrub delete backup export import_runs check dry_run
    """,
    "Client": """
        path open aclose
        start start_many run get find runs counts
        queue limit limits schedule schedules batch get_batch batches complete fail heartbeat events
        prune scrub delete export import_runs
    """,
    "Run": """
        id run_id result stream watch
        info status attributes history steps children descendants why waits
        signal ask query cancel pause resume reschedule resolve retry retry_hooks fork
    """,
    "Batch": "id parent add add_many batch info members cancel retry wait why",
    "QueueHandle": "name info pause resume clear change reset",
    "ScheduleHandle": "name info pause resume trigger backfill change delete",
}
OFFERED["Service"] = f"{OFFERED['Client']} is_executing health"


def callers_hold():
    """One of each, none of them open."""
    engine, client = durable.Engine(":memory:", []), durable.Client("none.db")
    service = durable.Service("none.db", [])
    return [engine, client, service, engine.get("r"), engine.get_batch("b"), engine.queue("q"), engine.schedule("s")]


ERROR_CLASSES = sorted(
    name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, BaseException)
)


def test_all_is_sorted_and_unique():
    """
    `durable.__all__` is sorted, so that a reader finds a name and a diff shows one line.
    """
    assert list(durable.__all__) == sorted(set(durable.__all__))


def test_each_name_is_loaded_from_where_type_checkers_see_it():
    """
    The table that programs load by says what type checkers are told, in the order of the names.
    """
    (block,) = [node for node in ast.parse(inspect.getsource(_face)).body if isinstance(node, ast.If)]
    *imported, listed = block.body
    homes = {alias.asname or alias.name: f"{node.module}:{alias.name}" for node in imported for alias in node.names}
    table = {name: f"durable.{home}" if ":" in home else f"durable.{home}:{name}" for name, home in _face.HOMES.items()}
    assert table == homes
    assert list(_face.HOMES) == ast.literal_eval(listed.value)
    for name, home in table.items():
        module, _, there = home.partition(":")
        assert getattr(durable, name) is getattr(importlib.import_module(module), there)


def test_a_name_loads_its_module_and_not_all_others():
    """
    A program that defines steps, in a process that runs none of them, starts without the engine.
    """
    code = (
        "import sys, durable; durable.step; durable.errors.StepError; assert 'Engine' in dir(durable);"
        "print([name for name in sys.modules if name.startswith(('durable._shell.', 'asyncio', 'anyio'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["CompensationError", "GroupFailedError"])
def test_an_error_that_journals_find_in_durable_is_found_before_anybody_names_it(name):
    """
    One that catches it by its name does so only after it was decoded.
    """
    code = f"from durable._core.codec.class_names import loaded_class; print(loaded_class('durable', '{name}'))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"<class 'durable.{name}'>"


def test_every_name_of_all_can_be_imported():
    """
    `from durable import *` works.
    """
    absent = [name for name in durable.__all__ if not hasattr(durable, name)]
    assert not absent, f"in durable.__all__, but not defined: {' '.join(absent)}"


def test_every_documented_name_is_public():
    """
    What the documents name is in `durable.__all__`, and so is every error: a handler needs no second import.
    """
    missing = [name for name in DOCUMENTED + ERROR_CLASSES if name not in {*durable.__all__, "resource"}]
    assert not missing, f"documented, but not in durable.__all__: {' '.join(missing)}"


def test_every_public_name_is_documented():
    """
    What is in `durable.__all__` is in the documents, or is an error of `durable.errors`.
    """
    extra = set(durable.__all__) - set(DOCUMENTED) - set(ERROR_CLASSES)
    assert not extra, f"in durable.__all__, but not documented: {' '.join(sorted(extra))}"


@pytest.mark.parametrize("held", callers_hold(), ids=lambda held: type(held).__name__)
def test_help_and_completion_show_what_users_may_call_and_nothing_else(held):
    """
    How it is done is not to be seen: plumbing that looks public is called, and must then be kept.
    """
    offered = sorted(OFFERED[type(held).__name__].split())
    assert [name for name in dir(held) if not name.startswith("_")] == offered
    found = {name: getattr(type(held), name) for name in offered if hasattr(type(held), name)}
    assert [name for name, value in found.items() if not (value.__doc__ or "").strip()] == []


def test_a_service_takes_every_option_of_an_engine():
    """
    But `standby`, which it always is, and `storage`, which has no other processes. A new option goes into both.
    """
    taken = inspect.signature(durable.Engine).parameters.values()
    by_keyword = {each.name: each.annotation for each in taken if each.kind is each.KEYWORD_ONLY}
    del by_keyword["standby"], by_keyword["storage"]
    assert {name: ref.__forward_arg__ for name, ref in EngineOptions.__annotations__.items()} == by_keyword


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_public_names_explain_themselves(name):
    """
    `help(durable.<name>)` says something: every public class and function has a docstring of its own.
    """
    value = getattr(durable, name, None)  # a missing one is reported above
    if inspect.isclass(value) or inspect.isroutine(value):
        assert (value.__doc__ or "").strip(), f"durable.{name} has no docstring"


def test_errors_are_the_same_objects_everywhere():
    """
    An error exported by `durable` is the class of `durable.errors`, which lists all: either import catches it.
    """
    assert sorted(errors.__all__) == ERROR_CLASSES
    for name in ERROR_CLASSES:
        assert getattr(durable, name) is getattr(errors, name)


def test_the_tree_of_errors_is_the_one_in_the_docstring():
    """
    `durable.errors` opens with the whole hierarchy; it is complete and correctly nested.
    """
    drawn: dict[str, str] = {}
    path: list[str] = []  # the entry at hand and its ancestors
    for line in (errors.__doc__ or "").splitlines():
        if entry := re.match(r"^    ((?:[│ ]   )*(?:[├└]── )?)(\w+Error)\b", line):
            path = [*path[: len(entry[1]) // 4], entry[2]]
            drawn[entry[2]] = path[-2] if len(path) > 1 else "Exception"
    found = {name: getattr(errors, name).__bases__[0].__name__ for name in ERROR_CLASSES if name.endswith("Error")}
    assert drawn == found


@pytest.mark.parametrize("name", ERROR_CLASSES)
def test_every_error_survives_pickling(name):
    """
    An error crosses a process boundary with its fields and its sentence.
    """
    kind = getattr(errors, name)
    made_by = next(base.__init__ for base in kind.__mro__ if "__init__" in vars(base))
    fields = list(inspect.signature(made_by).parameters.values())[1:] if inspect.isfunction(made_by) else []
    error = kind(*[7 if field.annotation in {"int", "float"} else field.name for field in fields] or ["reason"])
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_the_version_is_that_of_the_distribution():
    """
    `durable.__version__`, also where the package is on the path and not installed.
    """
    assert re.fullmatch(r"\d+\.\d+\.\d+", durable.__version__)
    assert metadata.version("durable-asyncio") == durable.__version__


def test_a_star_hides_no_module_of_the_standard_library_that_is_often_imported():
    """
    `resource` is imported by its name, so that ``import resource`` before a star still means what it says.
    """
    here = {}
    exec("import resource\nfrom durable import *", here)
    assert here["resource"].__name__ == "resource"
    assert callable(durable.resource)
    exec("from durable import resource", here)
    assert here["resource"] is durable.resource

"""
`--app`: which applications are taken, and what is said of those that are not.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

from durable._cli.applications import add_application, application_of, load_application
from durable._cli.terminal.problems import USAGE, CommandError
from durable._core.authoring.registry import collect
from durable.errors import DefinitionError

RIDES = """
from durable import Engine, Flow, Return, job, step, workflow

@step
async def charge(ride_id: int) -> str: ...

@job
async def audit(ride_id: int) -> None: ...

@workflow
async def ride(ride_id: int) -> Flow[str]:
    yield Return("x")

def chosen():
    return [ride]

def broken():
    return 1 / 0

async def later(): ...

def of(size): ...

listed = (audit,)
nothing = []
number = 7
"""
HOOKS = """
class Hooks:
    def encode(self, data): return data[::-1]
    def decode(self, data): return data[::-1]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """
    The current directory: what is imported from it is forgotten again.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def names(text):
    return set(collect(load_application(text).definitions))


def refusal(text):
    with pytest.raises(CommandError) as caught:
        load_application(text)
    assert caught.value.code == USAGE
    return str(caught.value)


# --- what is taken --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("town.rides", {"ride", "audit"}),
        ("town.rides:ride", {"ride"}),
        ("town.rides:chosen", {"ride"}),
        ("town.rides:listed", {"audit"}),
        ("town/rides.py", {"ride", "audit"}),
        ("town/rides.py:chosen", {"ride"}),
        ("./town/rides.py", {"ride", "audit"}),
    ],
)
def test_an_application_is_a_module_or_something_in_it(folder, text, expected):
    """
    A module's workflows and jobs; a definition, a list, what a function returns; by name, or by file.
    """
    folder("town/__init__.py", "")
    folder("town/rides.py", RIDES)
    assert names(text) == expected
    assert load_application(text).name == text


def test_an_engine_gives_its_definitions_and_its_codec(folder):
    """
    Named, it stands for itself; a module with just one engine is decoded with that one's codec.
    """
    folder("hooked.py", f"{RIDES}{HOOKS}\nengine = Engine('never-made.db', [ride], codec=Hooks())\nsame = engine")
    assert names("hooked:engine") == {"ride"}
    assert names("hooked") == {"ride", "audit"}
    for text in ("hooked:engine", "hooked"):
        assert load_application(text).codec.encode("abc") == b'"cba"'
    assert not Path("never-made.db").exists(), "loading opened the engine"


def test_a_module_with_two_engines_has_the_codec_of_neither(folder):
    """
    Which one is meant must be said.
    """
    folder("two_of.py", f"{RIDES}{HOOKS}\na = Engine('a.db', [ride], codec=Hooks())\nb = Engine('b.db', [ride])")
    assert load_application("two_of").codec.encode("abc") == '"abc"'
    assert load_application("two_of:a").codec.encode("abc") == b'"cba"'


def test_an_engine_of_definitions_that_stand_elsewhere_is_enough(folder):
    """
    A main module that imports its workflows' module, and not each of them.
    """
    folder("flows_of.py", RIDES)
    folder("main_of.py", "import flows_of\nfrom durable import Engine\nengine = Engine('x.db', [flows_of])")
    assert names("main_of") == {"ride", "audit"}


def test_a_file_is_known_by_its_stem_and_imported_once(folder):
    """
    Journals name the classes of a script's main module by its stem, so that is what it is imported as.
    """
    path = folder("scripts/nightly_run.py", RIDES)
    first = load_application(str(path)).definitions[0]
    assert first.__name__ == "nightly_run"
    assert sys.modules["nightly_run"] is first
    assert load_application(f"{path}:ride").definitions == [first.ride]


def test_another_file_of_the_same_name_takes_its_place(folder):
    """
    Two scripts of one name, in one process: each is what was asked for.
    """
    folder("a/script_of.py", RIDES)
    folder("b/script_of.py", "from durable import job\n@job\nasync def other() -> None: ...")
    assert names("a/script_of.py") == {"ride", "audit"}
    assert names("b/script_of.py") == {"other"}


def test_a_script_imports_what_stands_beside_it(folder):
    """
    As when it is run.
    """
    folder("deep/parts_of.py", RIDES)
    folder("deep/whole_of.py", "from parts_of import ride")
    assert names("deep/whole_of.py") == {"ride"}


def test_the_option_has_a_variable(folder, monkeypatch):
    """
    `--app` wins over DURABLE_APP; without both it is said what to do.
    """
    folder("by_variable.py", RIDES)

    def parsed(*argv):
        parser = ArgumentParser()
        add_application(parser)
        return parser.parse_args(argv)

    monkeypatch.setenv("DURABLE_APP", "by_variable:ride")
    assert application_of(parsed()).name == "by_variable:ride"
    assert application_of(parsed("--app", "by_variable")).name == "by_variable"
    monkeypatch.delenv("DURABLE_APP")
    with pytest.raises(CommandError, match=r"which application\? Name it with --app pkg.mod, or set DURABLE_APP"):
        application_of(parsed())


def test_what_an_application_prints_does_not_mix_with_the_commands_output(folder, capsys):
    """
    It goes to standard error.
    """
    folder("chatty.py", f"print('imported')\n{RIDES}\ndef make():\n    print('called')\n    return [ride]")
    load_application("chatty:make")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "imported\ncalled\n")


# --- what is not ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("town.ridse", "no module is called 'town.ridse' (did you mean town.rides?), seen from "),
        ("twon.rides", "no module is called 'twon' (did you mean town?), seen from "),
        ("town.rides.ride", "no module is called 'town.rides.ride' (did you mean town.rides:ride?)"),
        ("zzzzzz", "no module is called 'zzzzzz', seen from "),
        ("town.rides:rides", "town.rides:rides: module 'town.rides' has no 'rides' (did you mean 'ride'?)"),
        ("town.rides:ride.qqqqq", "Workflow of that name has no 'qqqqq'"),
        ("town/rides", "there is no Python file town/rides: did you mean its .py file?"),
        ("town/none.py", "there is no Python file town/none.py"),
        ("town rides", "'town rides' is not the name of a module"),
        ("..rides", "'..rides' is not the name of a module"),
        (":ride", "':ride' is not an application"),
        ("town.rides:", "'town.rides:' is not an application"),
        ("town", "'town' has no workflows and no jobs: expected a module with workflows or jobs, an Engine, "),
        ("town.rides:nothing", "'town.rides:nothing' has no workflows and no jobs, it is empty: expected "),
        ("town.rides:number", "'town.rides:number' is int 7: expected "),
        ("town.rides:Engine", "'town.rides:Engine' is the class Engine: expected "),
        ("town.rides:charge", "'town.rides:charge' is the step 'charge': expected "),
        ("town.rides:later", "'town.rides:later' is an async function"),
        ("town.rides:of", "'town.rides:of' cannot be called without arguments: missing a required argument: 'size'"),
        ("json.py", "json.py would hide the module 'json' that others import"),
    ],
)
def test_what_is_no_application_is_told_by_what_was_found(folder, text, expected):
    """
    Exit code 2; the message says what was found, what was expected, and what may have been meant.
    """
    folder("town/__init__.py", "")
    folder("town/rides.py", RIDES)
    folder("json.py", RIDES)
    assert expected in refusal(text)


@pytest.mark.parametrize(
    "source, error, line",
    [
        ("\n\nraise ValueError('bad\\x1b[31m')", "ValueError: bad\\x1b[31m", 3),
        ("\nimport no_such_library", "ModuleNotFoundError: No module named 'no_such_library'", 2),
        ("import json\n\njson.loads('{')", "JSONDecodeError: Expecting property name", 3),
        ("x = (", "SyntaxError: '(' was never closed", 1),
        ("from durable import workflow\n@workflow\ndef f(): ...", "DefinitionError: @workflow 'f' must be", 2),
        ("import sys\nsys.exit(3)", "it ended the program: put what runs it below `if __name__ == '__main__':`", 2),
        ("from . import x", "(it is part of a package: name it as pkg.mod)", 1),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".py"])
def test_an_application_that_cannot_be_imported_is_told_by_its_own_last_line(folder, source, error, line, suffix):
    """
    The exception and the line of the application that is to blame, in one line instead of a page of traceback.
    """
    path = folder("cannot_be.py", source)
    found = refusal(f"cannot_be{suffix}")
    assert found.startswith("cannot import ")
    assert error in found
    assert found.endswith(f"(at {path}:{line})")
    assert "\n" not in found
    assert "cannot_be" not in sys.modules


def test_a_function_that_fails_is_told_by_its_line(folder):
    """
    As a module that does.
    """
    path = folder("fails_when_called.py", RIDES)
    expected = f"cannot call 'fails_when_called:broken': ZeroDivisionError: division by zero (at {path}:18)"
    assert refusal("fails_when_called:broken") == expected


def test_a_module_of_steps_is_told_what_it_lacks(folder):
    """
    Steps are no runs; other names are shown, so that a wrong module is recognised.
    """
    folder("steps_of.py", "from durable import step\n@step\nasync def charge() -> None: ...")
    assert "no workflows and no jobs, only steps and transactions (charge): " in refusal("steps_of")
    folder("words_of.py", "a = b = c = d = e = f = g = 1")
    assert "no workflows and no jobs, but a, b, c, d, e and 2 more: " in refusal("words_of")


def test_definitions_that_contradict_each_other_are_refused(folder):
    """
    As an engine refuses them.
    """
    folder("twice_of.py", "from durable import job\n@job(name='x')\ndef a(): ...\n@job(name='x')\ndef b(): ...")
    with pytest.raises(DefinitionError, match="two definitions are called 'x'"):
        load_application("twice_of")

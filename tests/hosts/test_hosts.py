"""
One program under the hosts that programs have: each ends as it should, and says nothing on stderr.

| host | here |
|---|---|
| `python program.py`, `-m`, a zipapp, `-OO` | `PROGRAMS` |
| ``-W error -X dev`` | all of them, and every loop |
| asyncio, its debug mode, eager tasks (Python 3.12), uvloop, `anyio.run` | `LOOPS` |
| the other interpreters that are found, from 3.11 on | `INTERPRETERS`; skipped where there is none |
| PyInstaller | tests/binary |
| Cython | refused: `test_an_async_generator_of_cython_is_refused` |
| Nuitka | not tried |
"""

import functools
import os
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from durable import workflow
from durable.errors import DefinitionError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STRICT = ["-W", "error", "-X", "dev"]
RESULTS = ["failed: LookupError('as it should')", "results: 3229 16 1005"]


def command(program, folder):
    """
    How Python is told to run it.
    """
    if program == "a module":
        (folder / "application").mkdir()
        shutil.copy(HERE / "program.py", folder / "application" / "program.py")
        return ["-m", "application.program"]
    if program == "a zipapp":
        (folder / "application").mkdir()
        shutil.copy(HERE / "program.py", folder / "application" / "__main__.py")
        zipapp.create_archive(folder / "application", folder / "application.pyz")
        return ["application.pyz"]
    return (["-OO"] if program == "without docstrings" else []) + [str(HERE / "program.py")]


def check(folder, arguments, *, python=sys.executable, path=()):
    """
    It ends as it should.
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *path]), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [python, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if line.startswith(("failed:", "results:"))]
    assert lines == RESULTS


@pytest.mark.parametrize("program", ["a file", "a module", "a zipapp", "without docstrings"])
def test_a_program_runs_in_every_form(tmp_path, program):
    """
    A script, a module of a package, an archive, and with assertions and docstrings left out.
    """
    check(tmp_path, [*STRICT, *command(program, tmp_path), "app.db", "asyncio"])


@pytest.mark.parametrize("loop", ["debug", "eager", "uvloop", "anyio"])
def test_a_program_runs_on_every_event_loop(tmp_path, loop):
    """
    Also where each new task begins at once, and where asyncio looks for mistakes.
    """
    if loop == "eager" and sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12; another interpreter tries them below")
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    check(tmp_path, [*STRICT, str(HERE / "program.py"), "app.db", loop])


def interpreters():
    """
    The newest of each other minor version from 3.11 on, on the path or made by pyenv.
    """
    found = {}
    for python in sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3")):
        parts = python.parts[-3].split(".")
        if all(part.isdigit() for part in parts):
            found[int(parts[1])] = str(python)
    for minor in range(11, 16):
        if (python := shutil.which(f"python3.{minor}")) is not None and "shims" not in python:
            found.setdefault(minor, python)
    found = {minor: python for minor, python in found.items() if minor >= 11 and minor != sys.version_info.minor}
    return [pytest.param(python, id=f"3.{minor}") for minor, python in sorted(found.items())]


INTERPRETERS = interpreters() or [pytest.param(None, marks=pytest.mark.skip("no other interpreter is at hand"))]


@pytest.mark.parametrize("python", INTERPRETERS)
def test_a_program_runs_on_other_interpreters_with_eager_tasks(tmp_path, python):
    """
    With what is installed here, all of which is Python: nothing of it need be installed there.
    """
    version = subprocess.check_output([python, "-c", "import sys; print(sys.version_info >= (3, 12))"], text=True)
    packages = Path(sys.modules["attrs"].__file__).parents[1]
    loop = "eager" if version.strip() == "True" else "debug"
    check(tmp_path, [*STRICT, str(HERE / "program.py"), "app.db", loop], python=python, path=[str(packages)])


def test_an_async_generator_of_cython_is_refused():
    """
    When it is defined, with the way out. The function is a stand-in of the type that Cython's have.
    """

    def ride() -> None:
        """Whose name and code the stand-in has."""

    compiled = type("cython_function_or_method", (), {"__call__": lambda self: None, "__code__": ride.__code__})()
    functools.update_wrapper(compiled, ride)
    with pytest.raises(DefinitionError, match=r"compiled by Cython.*cythonize\(\).*coroutine function"):
        workflow(compiled)

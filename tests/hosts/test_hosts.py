"""
One program under the hosts that programs have: each ends as it should, and says nothing on stderr.

| host | here | last run |
|---|---|---|
| `python program.py`, `-m`, a zipapp, `-OO` | `PROGRAMS` | each build |
| ``-W error -X dev`` | all of them, and every loop | each build |
| asyncio, its debug mode, uvloop, `anyio.run` | `LOOPS` | each build |
| eager tasks | `LOOPS` from Python 3.12 on, `INTERPRETERS` | each build that has one |
| Python 3.11 | all tests | each build |
| Python 3.12, 3.13: the program | `INTERPRETERS`; skipped where there is none | each build that has one |
| Python 3.12.1, 3.13.0 | tests/core, tests/contract (3,436 each), 15 files of tests/shell (499 each) | 2026-11-30 |
| Python 3.14 | not tried: no interpreter was at hand | |
| PyInstaller 6 | tests/binary | `make test-binary` |
| Cython: its type | `test_an_async_generator_of_cython_is_refused` | each build |
| Cython 3.3 | `test_what_cython_compiles_is_refused_or_runs`, where it is installed | 2026-11-30 |
| Nuitka 4.3 | `test_a_program_that_nuitka_compiled_runs`, where it is installed | 2026-11-30 |
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

pytestmark = pytest.mark.long  # each test is a process, or several
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
    command = [*([python] if python else []), *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
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


COMPILED = """
from durable import Engine, step, workflow

@step
async def one(number: int) -> int:
    return number

@workflow
async def plus_one(number: int) -> int:
    return await one(number) + 1
"""
REFUSED = """
from durable import Flow, workflow

@workflow
async def nothing() -> Flow[None]:
    yield None
"""
BUILD = """
from Cython.Build import cythonize
from setuptools import setup

setup(ext_modules=cythonize("*.py", language_level=3), script_args=["-q", "build_ext", "--inplace"])
"""
USES = """
import asyncio
from compiled import plus_one
from durable import Engine
from durable.errors import DefinitionError

async def main():
    async with Engine("app.db", [plus_one]) as engine:
        print(await engine.run(plus_one(1)))

asyncio.run(main())
try:
    import refused
except DefinitionError as error:
    print(str(error).partition(",")[0])
"""


@pytest.mark.timeout(300)
def test_what_cython_compiles_is_refused_or_runs(tmp_path):
    """
    By the compiler itself: a coroutine function that awaits its ops runs, an async generator is refused by name.
    """
    pytest.importorskip("Cython")
    for name, code in {"compiled": COMPILED, "refused": REFUSED}.items():
        (tmp_path / f"{name}.py").write_text(code)
    subprocess.run([sys.executable, "-c", BUILD], cwd=tmp_path, capture_output=True, check=True)
    for name in ("compiled", "refused"):
        (tmp_path / f"{name}.py").unlink()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.check_output([sys.executable, "-c", USES], cwd=tmp_path, env=env, text=True)
    assert said.splitlines() == ["2", "@workflow 'nothing' is compiled by Cython"]


@pytest.mark.timeout(300)
def test_a_program_that_nuitka_compiled_runs(tmp_path):
    """
    The program is compiled; what it imports stays as it is.
    """
    pytest.importorskip("nuitka")
    shutil.copy(HERE / "program.py", tmp_path)
    command = [sys.executable, "-m", "nuitka", "--nofollow-imports", "--jobs=2", "program.py"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    packages = str(Path(sys.modules["attrs"].__file__).parents[1])
    check(tmp_path, [str(tmp_path / "program.bin"), "app.db", "asyncio"], python=None, path=[packages])

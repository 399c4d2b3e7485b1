"""
The command line inside an application: what it brings along is found, and not hidden by what lies around.
"""

import os
import subprocess
import sys
import textwrap

import pytest

from durable import command_line
from durable._cli.applications import load_application

RIDES = """
    from durable import Flow, Return, step, workflow

    @step
    async def create() -> int:
        return 1

    @workflow
    async def ride() -> Flow[int]:
        yield Return((yield create()))
"""


def test_it_is_the_command_line(capsys):
    """
    `durable.command_line` carries out a command and returns its exit code.
    """
    assert command_line(["version"]) == 0
    assert "sqlite" in capsys.readouterr().out
    assert command_line(["nothing"]) == 2


def test_reading_through_it_needs_no_asyncio(tmp_path):
    """
    A program that offers the command line answers as soon as `durable` itself does.
    """
    script = "import sys, durable; durable.command_line(['--help']); sys.exit('asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL, timeout=30)


def test_the_program_itself_is_its_application(tmp_path):
    """
    `--app shop`, asked of shop.py: what was started is not loaded a second time.
    """
    script = tmp_path / "shop.py"
    script.write_text(
        textwrap.dedent(RIDES) + "from durable._cli.applications import load_application\n"
        "if __name__ == '__main__':\n"
        "    import __main__\n"
        "    assert load_application('shop').definitions == [__main__]\n"
        "    assert load_application('shop:ride').definitions == [ride]\n"
    )
    subprocess.run([sys.executable, script], check=True, cwd=tmp_path, timeout=30)


@pytest.mark.parametrize("frozen", [False, True])
def test_what_was_frozen_comes_first(tmp_path, monkeypatch, frozen):
    """
    A module of the current folder wins over an installed one, and loses against what a frozen program holds.
    """
    for folder in ("held", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rides_of_this_test.py").write_text(textwrap.dedent(RIDES))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "held"), *sys.path])
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    monkeypatch.chdir(tmp_path / "here")
    try:
        (module,) = load_application("rides_of_this_test").definitions
    finally:
        sys.modules.pop("rides_of_this_test", None)
    assert os.path.basename(os.path.dirname(module.__file__)) == ("held" if frozen else "here")

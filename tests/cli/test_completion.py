"""
`durable completion`: what a shell offers while somebody types. Bash is tried; of the others, what they are told.
"""

import re
import shutil
import subprocess

import pytest

from durable._cli.table import COMMANDS

BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    from durable._cli.main import main

    path = tmp_path_factory.mktemp("completion") / "durable.bash"
    with pytest.MonkeyPatch.context() as patch, path.open("w", encoding="utf-8") as file:
        patch.setattr("sys.stdout", file)
        assert main(["completion", "bash"]) == 0
    return path


def offered(script, *words):
    """
    What bash offers for the last of *words*.
    """
    line = " ".join(f"'{word}'" for word in ("durable", *words))
    asked = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _durable; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    return subprocess.run([BASH, "-c", asked], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(BASH is None, reason="no bash here")
def test_bash_completes_commands_options_and_their_choices(script):
    """
    The name of a command; then its options; then what an option may be. Where a run or a file is meant, nothing.
    """
    assert set(offered(script, "")) == set(COMMANDS)
    assert offered(script, "gr") == ["graph"]
    assert offered(script, "graph", "--for") == ["--format"]
    assert offered(script, "graph", "--format", "") == ["text", "mermaid", "dot", "svg"]
    assert offered(script, "graph", "--format", "s") == ["svg"]
    assert offered(script, "completion", "f") == ["fish"]
    assert offered(script, "show", "1a2") == []
    assert "--write" in offered(script, "ui", "--")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_are_told_every_command_and_option(cli, shell):
    """
    Quotes are balanced on each line, whatever a help text says.
    """
    lines = cli("completion", shell).lines
    text = "\n".join(lines)
    assert all(line.count("'") % 2 == 0 for line in lines)
    for name in COMMANDS:
        assert re.search(rf"^.*\b{name}\b.*(json|-l json)", text, re.MULTILINE), name


def test_another_shell_is_refused(cli):
    """
    Naming those that there are.
    """
    said = cli("completion", "csh")
    assert said.code == 2
    assert "bash" in said.err

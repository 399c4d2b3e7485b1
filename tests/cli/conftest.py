"""
The command line as tests call it: in this process, its output and exit code kept.
"""

import json

import pytest
from attrs import frozen

from durable._cli.main import main


@frozen
class Said:
    """What a command wrote, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self):
        return self.out.splitlines()

    @property
    def values(self):
        """Its output as JSON, one value a line."""
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def cli(capsys, monkeypatch):
    """
    Carries out a command: ``cli("list", "--db", path) -> Said``. No terminal, no variables of the person at the desk.
    """
    for name in ("DURABLE_DB", "DURABLE_APP", "COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def carry_out(*argv):
        capsys.readouterr()
        code = main([str(each) for each in argv])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return carry_out

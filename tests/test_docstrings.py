"""
The examples in docstrings do what they show, as pasted into `python -m asyncio`.
"""

import ast
import asyncio
import doctest
import inspect
import types
from dataclasses import dataclass
from datetime import UTC, timedelta

import pytest

import durable
from durable import _face

#: What an example may use besides the public names: it has no room for these imports.
IMPORTED = {"UTC": UTC, "dataclass": dataclass, "timedelta": timedelta}
EXAMPLES = [
    name for name in _face.HOMES if inspect.getdoc(getattr(durable, name)) and ">>>" in getattr(durable, name).__doc__
]


@pytest.fixture
def awaiting(monkeypatch):
    """
    Lets `doctest` execute statements that await, on one event loop, as that prompt does.
    """
    with asyncio.Runner() as runner:

        def execute(code, namespace):
            statement = types.FunctionType(code, namespace)()
            if inspect.iscoroutine(statement):
                runner.run(statement)

        monkeypatch.setattr(doctest, "exec", execute, raising=False)
        yield


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_docstring_is_true(name, awaiting, tmp_path, monkeypatch):
    """
    It shows what one sees.
    """
    monkeypatch.chdir(tmp_path)
    namespace = {each: getattr(durable, each) for each in _face.HOMES} | IMPORTED | {"__name__": "__main__"}
    found = doctest.DocTestParser().get_doctest(inspect.getdoc(getattr(durable, name)), namespace, name, None, 0)
    told = []
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    failed = doctest.DocTestRunner(optionflags=options).run(
        found, compileflags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, out=told.append
    )
    assert not failed.failed, "".join(told)


def test_every_function_has_an_example():
    """
    Where `help()` and the reference show it.
    """
    functions = [name for name in _face.HOMES if inspect.isfunction(getattr(durable, name))]
    assert not [name for name in functions if name not in EXAMPLES]

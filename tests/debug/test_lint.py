"""
`durable check --lint`: the lines of workflow code that are another thing in every replay, and no others.
"""

import importlib.util
import linecache
import sys
import textwrap
import time

import pytest

from durable import workflow
from durable._core.authoring.registry import collect
from durable._debug.lint import lint

APPLICATION = """
import asyncio, datetime, datetime as dt, functools, os, random, subprocess, threading, time, uuid
from dataclasses import dataclass, field
from datetime import datetime as moment
from time import time as clock
from uuid import uuid4

import durable
from durable import for_each, gather, job, now, sleep, step, transaction, workflow

class Tool:
    @staticmethod
    def draw() -> int:
        return random.randint(1, 6)

def stamp():
    return time.time()

def logged(fn):
    @functools.wraps(fn)
    def wrapper(*args):
        return fn(*args)
    return wrapper

@logged
def wrapped_stamp():
    return time.time()

async def helper():
    return await look(uuid4())

first = lambda: random.random()

@step
async def look(what=None) -> float:
    return time.time() + random.random() + len(os.environ) + hash("x")

@transaction
def book(tx) -> float:
    return time.time()

@job
async def mail() -> float:
    return time.time()

@workflow
async def other():
    await look(time.time())

@workflow
async def flow(time_limit: float, names: set):
    {line}
    await look()
"""


def found_in(tmp_path, line):
    """What is found in a workflow with *line* in it: (what, what to use, the text of the line)."""
    path = tmp_path / "linted.py"
    text = APPLICATION.replace("{line}", textwrap.indent(textwrap.dedent(line), "    ").strip())
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("linted", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["linted"] = module
    try:
        spec.loader.exec_module(module)
        report = lint(collect([module.flow]))
    finally:
        del sys.modules["linted"]
    assert all(each.file == str(path) and each.workflow in ("flow", "other") for each in report.findings)
    assert report.unread == []
    return [(each.found, each.instead, text.splitlines()[each.line - 1].strip()) for each in report.findings]


@pytest.mark.parametrize(
    "line, found, instead",
    [
        ("began = time.time()", "time.time()", "durable.now()"),
        ("began = clock()", "time.time()", "durable.now()"),
        ("today = datetime.datetime.now(dt.UTC)", "datetime.datetime.now()", "durable.now()"),
        ("today = moment.now()", "datetime.datetime.now()", "durable.now()"),
        ("today = dt.date.today()", "datetime.date.today()", "durable.now()"),
        ("when = time.gmtime()", "time.gmtime()", "durable.now()"),
        ("if random.random() < 0.5: await look()", "random.random()", "durable.random()"),
        ("dice = random.Random()", "random.Random()", "durable.random()"),
        ("await look(str(uuid.uuid4()))", "uuid.uuid4()", "durable.uuid4()"),
        ("await look(os.urandom(8))", "os.urandom()", "a step, or durable.random()"),
        ("import secrets; secrets.token_hex()", "secrets.token_hex()", "a step"),
        ("url = os.environ['URL']", "os.environ", "an argument of the workflow, or a step"),
        ("url = os.getenv('URL')", "os.getenv()", "an argument of the workflow, or a step"),
        ("await asyncio.sleep(1)", "asyncio.sleep()", "durable.sleep()"),
        ("await asyncio.wait_for(helper_of, 1)", "asyncio.wait_for()", "durable.timeout()"),
        ("asyncio.create_task(look())", "asyncio.create_task()", "durable.gather(), or start() for a run of its own"),
        ("threading.Thread(target=print).start()", "threading.Thread()", "a step (a plain `def` runs in a thread"),
        ("subprocess.run(['ls'])", "subprocess.run()", "a step"),
        ("text = open('a').read()", "open()", "a step"),
        ("key = hash('a')", "hash()", "the value itself, or hashlib"),
        ("key = id(names)", "id()", "the value itself, or durable.uuid4()"),
        ("for name in {'a', 'b'}: await look(name)", "the order of a set", "sorted(...)"),
        ("for name in set(names): await look(name)", "the order of a set", "sorted(...)"),
        ("for name in frozenset(names) - {'a'}: await look(name)", "the order of a set", "sorted(...)"),
        ("every = [look(name) for name in set(names)]", "the order of a set", "sorted(...)"),
        ("every = {name: 1 for name in set(names)}", "the order of a set", "sorted(...)"),
        ("every = list({*names})", "the order of a set", "sorted(...)"),
        ("every = [*set(names)]", "the order of a set", "sorted(...)"),
        ("every = ', '.join(set(names))", "the order of a set", "sorted(...)"),
        ("await for_each(look, set(names))", "the order of a set", "sorted(...)"),
        ("await gather(*{look(1), look(2)})", "the order of a set", "sorted(...)"),
        ("some = set(names); any_one = some.pop()", "set.pop()", "a list"),
        ("some = set(); some.add(1); print([*some])", "the order of a set", "sorted(...)"),
    ],
)
def test_a_line_that_is_another_thing_in_every_replay_is_named(tmp_path, line, found, instead):
    """
    What it does there, by its full name however it was imported, and what to use instead.
    """
    ((what, use, _),) = found_in(tmp_path, line)
    assert what == found
    assert use.startswith(instead)


@pytest.mark.parametrize(
    "line, text",
    [
        ("stamp()", "return time.time()"),
        ("wrapped_stamp()", "return time.time()"),
        ("await helper()", "return await look(uuid4())"),
        ("Tool.draw()", "return random.randint(1, 6)"),
        ("some = sorted(names, key=first)", "first = lambda: random.random()"),
        ("later = lambda: time.time()", "later = lambda: time.time()"),
        ("await gather(helper(), helper())", "return await look(uuid4())"),
        ("await other()", "await look(time.time())"),
    ],
)
def test_helpers_are_read_as_well(tmp_path, line, text):
    """
    Functions, lambdas and static methods of the application, and workflows that are children: the line is theirs.
    """
    assert [each for _, _, each in found_in(tmp_path, line)] == [text]


@pytest.mark.parametrize(
    "line",
    [
        "pass",
        "await look(now()); durable.random().random(); durable.uuid4()",
        "await mail(); await book(); await sleep(1)",
        "random.Random(7).random()",
        "when = time.gmtime(3); moment.fromtimestamp(0, dt.UTC); dt.timedelta(1)",
        "def inner(time): return time.time()\ninner(None)",
        "time = names; time.time()",
        "@step\nasync def inner() -> float: return time.time()\nawait inner()",
        "for name in names: await look(name)",
        "for name in sorted(set(names)): await look(name)",
        "for number in {1, 2, 3}: await look(number)",
        "least = min(list(set(names))); some = any(name for name in {'a'}); 'a' in {'a', 'b'}",
        "total = sorted([name for name in set(names)]); other_names = {name for name in set(names)}",
        "some = set(names)\nsome = await look()\nfor name in some: await look(name)",
        "some: set = await look()\nfor name in some | {'a'} if False else some: await look(name)",
        "await look({'a', 'b'})",
        "began = time.time()  # durable: ok",
        "rng: random.Random = durable.random()",
        "print(names)",
    ],
)
def test_no_false_alarms(tmp_path, line):
    """
    Steps may do all of it; what `durable` gives, what comes to the same in any order, and what a comment lets pass.
    """
    assert found_in(tmp_path, line) == []


def test_a_workflow_within_a_function_is_read_with_what_that_binds():
    """
    Also if a text in it is indented less than its code; the line is the one in the file.
    """
    clock = time.time

    @workflow
    async def inner():
        print("""
a text""")
        clock()  # here

    (found,) = lint(collect([inner])).findings
    assert found.found == "time.time()"
    assert "# here" in linecache.getline(found.file, found.line)


def test_what_has_no_source_is_named():
    """
    A frozen program, or a prompt: nothing is said of what could not be read.
    """
    scope = {}
    exec("async def unseen(): ...", scope)
    report = lint(collect([workflow(scope["unseen"])]))
    assert (report.workflows, report.findings, report.unread) == (0, [], ["unseen"])

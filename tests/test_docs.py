"""
What the documents show works: their Python blocks run, and so does every example.
"""

import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
EXAMPLE_SECONDS = 60

DOCUMENTS = ["README.md", "CHANGELOG.md"]
BY_THEMSELVES = {
    "census.py": "make demo",  # that takes longer; CI runs it, too
    "service": "tests/examples/test_service.py",  # with shorter trials
    "agent": "tests/examples/test_agent.py",
    "shop": "tests/examples/test_shop.py",
}
SCRIPTS = sorted(
    [path.name for path in EXAMPLES.glob("*.py")] + [path.parent.name for path in EXAMPLES.glob("*/__main__.py")]
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_blocks_run(name, tmp_path, monkeypatch):
    """
    Each Python block of a document runs, in order and in one namespace, as a reader would paste them.

    A block that needs a stage set is preceded by `<!-- invisible-code-block: python ... -->`.
    """
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(ROOT / name)
    # The blocks live in a module: classes look up their own to resolve annotations.
    module = types.ModuleType(name.replace(".", "_").lower())
    monkeypatch.setitem(sys.modules, module.__name__, module)
    document.namespace = vars(module)
    monkeypatch.chdir(tmp_path)
    for example in document.examples():
        example.evaluate()


def test_the_tests_that_the_readme_shows_pass(tmp_path):
    """
    As its reader would have them: a file beside `ride.py`, run by pytest, with no configuration.
    """
    shown = re.search(
        r"<!-- test_ride.py -->\n```py\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert shown
    assert len(shown[1].strip().splitlines()) < 25
    (tmp_path / "test_ride.py").write_text(shown[1], encoding="utf-8")
    (tmp_path / "ride.py").write_text((EXAMPLES / "ride.py").read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", "-s"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"ride: \d+ sites, .* survived \d+ faults", done.stdout)


def test_the_readme_shows_python():
    """
    The test above has something to run.
    """
    assert "```python\n" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", [*DOCUMENTS, "examples/guide/production.md", "examples/README.md", "durable/README.md"]
)
def test_links_lead_somewhere(name):
    """
    Every file that a document links to is there.
    """
    document = ROOT / name
    links = re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing, f"{name} links to {' '.join(missing)}"


@pytest.mark.timeout(EXAMPLE_SECONDS + 15)
@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in BY_THEMSELVES])
def test_example_ends_well(name, tmp_path):
    """
    Each example runs from an empty folder, ends by itself, and exits with 0.
    """
    child = subprocess.Popen(
        [sys.executable, EXAMPLES / name],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that the children it starts can be ended with it
    )
    try:
        output, _ = child.communicate(timeout=EXAMPLE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, _ = child.communicate()
        pytest.fail(f"examples/{name} did not end within {EXAMPLE_SECONDS} s; it printed:\n{output}")
    assert child.returncode == 0, f"examples/{name} exited with {child.returncode}:\n{output}"


def test_the_list_of_examples_is_complete():
    """
    `examples/README.md` has a table row for each example, and none for one that is gone.
    """
    rows = [line for line in (EXAMPLES / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    listed = {name.rstrip("/") for row in rows for name in re.findall(r"\[?`([\w-]+(?:\.py|/))`", row.split("|")[1])}
    assert listed == set(SCRIPTS)


def test_there_are_examples():
    """
    The tests above have something to run.
    """
    assert SCRIPTS

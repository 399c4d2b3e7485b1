"""
Add events and an outcome to a copy of the package: mypy must name the places that do not know them.

Called by `make types`. Matches that end in `assert_never` are worth what the type checker makes of them; this
proves that nobody who adds to a union has to look for those who read it.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
EVENTS = "_core/journal/events.py"

NEW_EVENTS = '''
@light_frozen
class Asked(AskedByCode):
    """A new command."""

    kind: ClassVar[int] = 90
    category: ClassVar[Literal["command"]] = "command"
    position: str
    at: float = 0.0


@light_frozen
class StepPaused(Positioned):
    """A new arrival of a step."""

    kind: ClassVar[int] = 91
    category: ClassVar[Literal["arrival"]] = "arrival"
    outcome = "paused"
    position: str
    at: float = 0.0


@light_frozen
class ChildPaused(Positioned):
    """A new arrival of a child."""

    kind: ClassVar[int] = 92
    category: ClassVar[Literal["arrival"]] = "arrival"
    position: str
    at: float = 0.0


@light_frozen
class PauseRequested(RunWide):
    """A new arrival of the whole run."""

    kind: ClassVar[int] = 93
    category: ClassVar[Literal["arrival"]] = "arrival"
    at: float = 0.0


@light_frozen
class Remarked(RunWide):
    """A new note, which says the wrong category."""

    kind: ClassVar[int] = 94
    category: ClassVar[Literal["end"]] = "end"
    at: float = 0.0


'''
#: (file, what stands there, what takes its place)
EDITS = [
    (EVENTS, "\n# --- the unions ---", f"{NEW_EVENTS}\n# --- the unions ---"),
    (EVENTS, "CommandEvent: TypeAlias = StepCommand |", "CommandEvent: TypeAlias = Asked | StepCommand |"),
    (EVENTS, "StepArrival: TypeAlias =", "StepArrival: TypeAlias = StepPaused |"),
    (EVENTS, "ChildArrival: TypeAlias =", "ChildArrival: TypeAlias = ChildPaused |"),
    (EVENTS, "RunArrival: TypeAlias =", "RunArrival: TypeAlias = PauseRequested |"),
    (EVENTS, "Note: TypeAlias =", "Note: TypeAlias = Remarked |"),
    (EVENTS, '    "retrying",\n    "snoozed",\n', '    "retrying",\n    "paused",\n    "snoozed",\n'),
]

#: What mypy must name: the new thing, and the modules that have to be told of it.
EXPECTED = {
    "Asked": {
        "_core/journal/history.py",  # what it waits for; whether a retry asks for it again; replacing its outcome
        "_core/recorded/run_lines.py",  # it does not describe itself
        "_cli/drawing/model.py",
    },
    "StepPaused": {"_core/journal/history.py", "_core/run/attempts.py", "_core/run/job_execution.py"},
    "ChildPaused": {"_core/journal/history.py", "_core/run/leaves.py"},
    "PauseRequested": {"_core/run/execution.py", "_core/run/job_execution.py", "_core/recorded/run_lines.py"},
    "Remarked": {"_core/journal/events.py"},
    "paused": {
        "_core/recorded/run_lines.py",
        "_cli/commands/debug/replay.py",
        "_cli/drawing/model.py",
        "_core/recorded/steps.py",
        "_debug/looking_around.py",
    },
}


def edit(package: Path) -> None:
    for file, old, new in EDITS:
        path = package / file
        text = path.read_text(encoding="utf-8")
        if text.count(old) != 1:
            sys.exit(f"{file} has {text.count(old)} times {old!r}, expected once: say in {__file__} what it is now")
        path.write_text(text.replace(old, new), encoding="utf-8")


def lend_cache(copy: Path) -> None:
    """
    What mypy has found out about the package already: it looks again at what depends on an edit, not at libraries.
    """
    if (cache := ROOT / ".mypy_cache").exists():
        shutil.copytree(cache, copy / ".mypy_cache")


def refused(copy: Path) -> list[tuple[str, str]]:
    """
    (module, message) of each error that mypy finds in the copy.
    """
    command = ["mypy", "--no-pretty", "--no-error-summary", "--cache-dir", ".mypy_cache", "durable"]
    done = subprocess.run([sys.executable, "-m", *command], cwd=copy, capture_output=True, text=True, check=False)
    if done.returncode != 1:  # 0: nothing found; 2: it could not work
        sys.exit(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return re.findall(r"^durable/(\S+\.py):\d+: error: (.*)$", done.stdout, re.MULTILINE)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "durable", copy / "durable", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        edit(copy / "durable")
        lend_cache(copy)
        errors = refused(copy)
    problems = 0
    for name, modules in EXPECTED.items():
        found = {module for module, message in errors if re.search(rf"\b{name}\b", message)}
        for module in sorted(modules - found):
            print(f"{module}: mypy does not say that {name} is missing here")
        problems += len(modules - found)
        print(f"{name}: to be told of it: {', '.join(sorted(found))}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

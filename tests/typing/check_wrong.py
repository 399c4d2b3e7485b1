"""
Run mypy and pyright over `wrong.py`: exactly the marked lines must be errors.

Called by `make types`. A type checker that finds nothing in good code proves little; this proves
that it finds what users get wrong.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WRONG = HERE / "wrong.py"
MARKER = re.compile(r"# E(?:\[(\w+)\])?:")  # both checkers, or the one named


def expected(checker: str) -> set[int]:
    lines = enumerate(WRONG.read_text(encoding="utf-8").splitlines(), start=1)
    return {number for number, line in lines if (found := MARKER.search(line)) and found[1] in {None, checker}}


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 1:  # both exit with 1 when they found errors, with more when they could not work
        sys.exit(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def mypy_errors() -> dict[int, str]:
    output = run("mypy", "--no-pretty", "--no-error-summary", "--hide-error-context", str(WRONG))
    pattern = re.compile(rf"^(?:.*/)?{re.escape(WRONG.name)}:(\d+)(?::\d+)*: error: (.*)$", re.MULTILINE)
    return {int(line): text for line, text in pattern.findall(output)}


def pyright_errors() -> dict[int, str]:
    report = json.loads(run("pyright", "--pythonpath", sys.executable, "--outputjson", str(WRONG)))
    return {
        entry["range"]["start"]["line"] + 1: entry["message"]
        for entry in report["generalDiagnostics"]
        if entry["severity"] == "error" and Path(entry["file"]).name == WRONG.name
    }


CHECKERS: dict[str, Callable[[], dict[int, str]]] = {"mypy": mypy_errors, "pyright": pyright_errors}


def main() -> int:
    problems = 0
    for checker, errors in CHECKERS.items():
        wanted, found = expected(checker), errors()
        for line in sorted(wanted - found.keys()):
            print(f"{WRONG}:{line}: {checker} accepts what must be an error")
        for line in sorted(found.keys() - wanted):
            print(f"{WRONG}:{line}: {checker} reports what is not marked: {found[line]}")
        problems += len(wanted ^ found.keys())
        print(f"{checker}: {len(wanted & found.keys())} of {len(wanted)} wrong lines refused")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

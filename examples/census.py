"""
A census of Python's standard library: the demo of `durable`, on real files.

A workflow lists the packages of the library that comes with this Python, starts one job for
each, and writes what the job counted into a table of its own, in the same file as the journal.

    python examples/census.py               kill the census twice with SIGKILL, and prove the result
    python examples/census.py --keep        the same, and keep the file, to look at with sqlite3
    python examples/census.py --run FILE    only run it: kill it and start it again yourself
"""

import argparse
import ast
import asyncio
import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from itertools import repeat
from operator import itemgetter
from pathlib import Path
from typing import Any

import structlog
from attrs import astuple, frozen

from durable import Engine, Flow, Queue, Return, Transaction, gather, job, step, transaction, workflow

KILLS = 2
CORES = os.cpu_count() or 1
#: A folder with more files is counted in parts: the smaller a job, the less a crash costs.
FILES_PER_JOB = 40


@frozen
class Package:
    name: str
    files: list[str]


@frozen
class Counts:
    """One file, as a row of the table."""

    package: str
    file: str
    parsed: bool
    lines: int = 0
    classes: int = 0
    functions: int = 0
    longest: int = 0
    longest_name: str = ""


# --- the workflow -----------------------------------------------------------------------------


@step
def list_packages(root: str) -> list[Package]:
    folders = defaultdict(list)
    for path in files_of(root):
        folders[path.parent.as_posix() if len(path.parts) > 1 else path.stem].append(path.as_posix())
    return [
        Package(f"{name} {start}" if start else name, files[start : start + FILES_PER_JOB])
        for name, files in folders.items()
        for start in range(0, len(files), FILES_PER_JOB)
    ]


@job(queue="parse", process=True)  # parsing keeps a core busy, so it goes to a pool of processes
def count(root: str, package: Package, calls: str) -> list[Counts]:
    with Path(calls).open("a") as log:  # the proof below wants a witness that is not the journal
        log.write(f"{package.name}\n")
    return [measure(root, file) for file in package.files]


@transaction
def create_table(tx: Transaction) -> None:
    # No column is unique: a row written twice should be seen, not refused.
    tx.execute(
        "CREATE TABLE census (package TEXT, file TEXT, parsed INTEGER,"
        " lines INTEGER, classes INTEGER, functions INTEGER, longest INTEGER, longest_name TEXT)"
    )


@transaction  # these rows and the news that they are written commit together
def store(tx: Transaction, rows: list[Counts]) -> int:
    return tx.executemany("INSERT INTO census VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(astuple, rows)).rowcount


@workflow
async def survey(root: str, package: Package, calls: str) -> Flow[int]:
    rows: list[Counts] = yield count(root, package, calls).options(labels={"package": package.name})
    stored: int = yield store(rows)
    yield Return(stored)


@workflow
async def census(root: str, calls: str) -> Flow[int]:
    yield create_table()
    packages: list[Package] = yield list_packages(root)
    # From here until the last survey has ended, this function is rows on disk, not an object in memory.
    stored: list[int] = yield gather(*(survey(root, package, calls) for package in packages))
    yield Return(sum(stored))


async def run(journal: Path, calls: Path) -> None:
    """Start the census, or continue with it: that is the same call."""
    async with Engine(journal, [census, survey, count], queues=[Queue("parse", concurrency=CORES)]) as engine:
        await engine.run(census(sysconfig.get_path("stdlib"), str(calls)), key="census")


# --- plain functions, which know nothing of engines --------------------------------------------


def files_of(root: str) -> list[Path]:
    """All Python files of the library, relative to *root*; what was installed later is not part of it."""
    found = (path.relative_to(root) for path in Path(root).rglob("*.py"))
    return sorted(path for path in found if not {"site-packages", "dist-packages", "__pycache__"} & set(path.parts))


def measure(root: str, file: str) -> Counts:
    """What is in one file; some test fixtures of the library are broken on purpose."""
    package, source = Path(file).parts[0].removesuffix(".py"), Path(root, file).read_bytes()
    try:
        with warnings.catch_warnings(action="ignore"):
            nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return Counts(package, file, parsed=False)
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    longest, longest_name = max(((1 + (f.end_lineno or 0) - f.lineno, f.name) for f in functions), default=(0, ""))
    return Counts(
        package,
        file,
        parsed=True,
        lines=len(source.splitlines()),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        functions=len(functions),
        longest=longest,
        longest_name=longest_name,
    )


# --- the demo: run it in a child process, and kill that twice -----------------------------------


def demo(folder: Path) -> bool:
    """Whether the census survived, by the journal's own account and by a count without it."""
    journal, calls, began = folder / "census.db", folder / "calls.log", time.monotonic()
    kills_at = [random.uniform(0.1, 0.4), random.uniform(0.5, 0.8)]  # as shares of the work
    killed = 0
    code: int | None = None
    while code is None or code == -signal.SIGKILL:
        child = subprocess.Popen([sys.executable, __file__, "--run", str(journal)])
        try:
            for done, total in watch(child, journal):
                if kills_at and total and done >= kills_at[0] * total:
                    kills_at.pop(0)
                    time.sleep(random.uniform(0, 0.1))
                    child.kill()  # SIGKILL: it cannot tidy up, nor even notice
                    killed += 1
                    show(f"killed process {child.pid} at {done} of {total} packages", keep=True)
        finally:
            child.kill()  # harmless if it has ended
            code = child.wait()
    if code != 0:
        show(f"the census ended with exit code {code}", keep=True)
        return False
    show(f"the census is complete, after {time.monotonic() - began:.1f} s and {killed} kills", keep=True)
    print_report(journal)
    return prove(journal, calls) and killed == KILLS


def watch(child: subprocess.Popen[bytes], journal: Path) -> Iterator[tuple[int, int]]:
    """How many packages are done, and of how many, again and again until the child has ended."""
    shown = -1
    while child.poll() is None:
        time.sleep(0.05)
        try:
            ((done, total),) = query(
                journal, "SELECT sum(status = 'succeeded'), count(*) FROM runs WHERE workflow = 'survey'"
            )
        except sqlite3.OperationalError:
            continue  # it has not come so far as to make the file
        percent = 100 * (done or 0) // max(total, 1)
        if total and percent // (1 if sys.stdout.isatty() else 10) != shown:
            shown = percent // (1 if sys.stdout.isatty() else 10)
            show(f"process {child.pid}: {done} of {total} packages, {percent} %")
        yield done or 0, total


def show(line: str, *, keep: bool = False) -> None:
    """Print *line*; on a terminal over the line before, unless that was to be kept."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{line}", end="\n" if keep else "", flush=True)
    else:
        print(line, flush=True)


def print_report(journal: Path) -> None:
    columns = "count(*), sum(NOT parsed), sum(lines), sum(classes), sum(functions), longest_name, max(longest)"
    rows = query(journal, f"SELECT package, {columns} FROM census GROUP BY 1 ORDER BY sum(lines) DESC LIMIT 15")  # noqa: S608
    rows += query(journal, f"SELECT 'all ' || count(DISTINCT package), {columns} FROM census")  # noqa: S608 - our own words
    line = "{:<16}{:>6}{:>12}{:>9}{:>9}{:>11}  {}"
    print("\n" + line.format("package", "files", "unparsable", "lines", "classes", "functions", "longest function"))
    for *numbers, name, length in rows:
        print(line.format(*numbers, f"{name} ({length} lines)" if name else "-"))


# --- the proof: sqlite3 on the journal's views, and a count without the engine ------------------


def prove(journal: Path, calls: Path) -> bool:
    ((runs, unfinished),) = query(journal, "SELECT count(*), sum(status != 'succeeded') FROM runs")
    ((outcomes, completed),) = query(
        journal,
        "SELECT count(*), count(DISTINCT run_id || ' ' || ifnull(position, '')) FROM history"
        " WHERE event IN ('StepSucceeded', 'RunSucceeded')",
    )
    ((again,),) = query(
        journal,
        "SELECT count(*) FROM history AS begun JOIN history AS ended USING (run_id) WHERE begun.seq > ended.seq"
        " AND begun.event IN ('StepStarted', 'TransactionStarted') AND (ended.event = 'RunSucceeded'"
        " OR ended.event = 'StepSucceeded' AND ended.position = begun.position)",
    )
    interrupted = dict(
        query(
            journal,
            "SELECT json_extract(labels, '$.package'), sum(event = 'StepInterrupted')"
            " FROM history JOIN runs USING (run_id) WHERE sort = 'job' GROUP BY 1",
        )
    )
    called = Counter(calls.read_text().splitlines())  # each job wrote a line when it was called
    rows = query(journal, "SELECT * FROM census ORDER BY file")

    root = sysconfig.get_path("stdlib")
    files = [path.as_posix() for path in files_of(root)]
    show("\nCounting the same files without the engine ...", keep=True)
    with ProcessPoolExecutor() as pool:
        plain = sorted(map(astuple, pool.map(measure, repeat(root), files, chunksize=50)), key=itemgetter(1))

    claims = {
        f"{runs} runs, and every one succeeded": unfinished == 0,
        f"{completed} completed steps and runs, with {outcomes} recorded outcomes": completed == outcomes,
        f"{again} started again after they had completed": again == 0,
        f"{len(interrupted)} packages in {called.total()} calls: {sum(interrupted.values())} attempts were cut off,"
        " and only those were repeated": called.keys() == interrupted.keys()
        and all(1 <= called[name] <= 1 + times for name, times in interrupted.items()),
        f"{len(rows)} rows, the same as in a plain count of {len(files)} files without the engine": rows == plain,
    }
    print("The proof, from the journal:")
    for claim, holds in claims.items():
        print(f"  {'yes' if holds else 'NO!'}  {claim}")
    return all(claims.values())


def query(journal: Path, sql: str) -> list[Any]:
    """Rows of the file, read as anybody may while its owner writes."""
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("--run", metavar="FILE", type=Path, help="only run the census, with its journal there")
    parser.add_argument("--keep", action="store_true", help="keep the journal, and say where it is")
    options = parser.parse_args()
    # The engine warns of attempts that were cut off: here they are the point. asyncio warns now and
    # then of a pool's process that had ended before it was asked to.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    if options.run:
        asyncio.run(run(options.run, options.run.with_name("calls.log")))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="census-"))
    print(f"A census of {sysconfig.get_path('stdlib')}, killed {KILLS} times on the way")
    try:
        proved = demo(folder)
    finally:
        if options.keep:
            print(f"\nThe journal is {folder / 'census.db'}")
        else:
            shutil.rmtree(folder)
    return 0 if proved else 1


if __name__ == "__main__":  # the pool's processes import this file, too
    sys.exit(main())

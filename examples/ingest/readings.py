"""
Reading a file of measurements: work for a processor, in a module that the processes of the pool import.
"""

import statistics
from pathlib import Path

from attrs import frozen

from durable import Limit, Rate, step

#: Two at once, and 500 a second: others that need the disk and the processors are not starved.
PARSING = Limit("parsing", concurrency=2, rate=Rate(500, per=1))


@frozen
class Summary:
    name: str
    lines: int
    mean: float


@step(process=True, limit=PARSING)
def parse(path: str) -> Summary:
    values = [float(line.rpartition(",")[2]) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return Summary(Path(path).name, len(values), statistics.fmean(values))

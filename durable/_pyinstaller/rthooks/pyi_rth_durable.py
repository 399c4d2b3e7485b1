"""
Runs first in a frozen program that imports `durable`: a worker process of steps with ``process=True`` works.

anyio starts a worker as ``PROGRAM -u -m anyio.to_process``. An interpreter runs that module; a frozen program
would take it for arguments of its own, and the application would be started a second time.
"""

import sys

if sys.argv[1:] == ["-u", "-m", "anyio.to_process"]:
    import io

    from anyio.to_process import process_worker

    # What -u asks for, because the worker does not flush its answers.
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "wb", closefd=False), write_through=True)
    process_worker()
    sys.exit()

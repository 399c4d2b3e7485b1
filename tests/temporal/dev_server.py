"""
A Temporal dev server as a child process: one static program from the package index, in memory, on a free port.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

# The dev server's own pace makes a step cost 50 ms and rounds timers up by a second: not for tests.
QUICK = (
    "history.transferProcessorMaxPollRPS=2000",
    "history.timerProcessorMaxPollRPS=2000",
    'history.timerProcessorMaxTimeShift="20ms"',
    'history.workflowIdReuseMinimalInterval="0s"',
    "frontend.namespaceRPS=1000000",
    "frontend.rps=1000000",
)
#: Beside `default`: one for each scenario, called ``scenario-0`` and so on. They cost nothing to speak of.
NAMESPACES = 150


def binary() -> str | None:
    """
    The program, if it is installed.
    """
    return _program("temporal")


def skipping_binary() -> str | None:
    """
    The test server, which skips time, if it is installed.
    """
    return _program("temporal-test-server")


def _program(name):
    return shutil.which(name, path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def dev_server(folder, *, port=None, on_disk=False):
    """
    A server; its address and its process.
    """
    port = port or free_port()
    names = [part for n in range(NAMESPACES) for part in ("--namespace", f"scenario-{n}")]
    command = [binary(), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    command += ["--log-level", "error", "--search-attribute", "DurableLabels=KeywordList", *names]
    for value in QUICK:
        command += ["--dynamic-config-value", value]
    if on_disk:
        command += ["--db-filename", str(folder / "server.db"), "--sqlite-pragma", "journal_mode=wal"]
    with open(folder / "server.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for_port(port, process, folder / "server.log")
        yield f"127.0.0.1:{port}", process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for_port(port, process, log):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        time.sleep(0.025)
    raise RuntimeError(f"the server does not listen: {log.read_text()[-2000:]}")

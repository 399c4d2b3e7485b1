"""
Processes that tests start as `subprocess` does, but forked from one that has imported the library already.

What starts, is killed or exits is a process of its own all the same. But importing the library is by far the most of
its work, and is done once for each worker of pytest. Not for tests of what is imported, of options of the interpreter,
or of what must be loaded before Python is.

    children.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=20)
    with children.Popen([sys.executable, SCRIPT, path], stdout=PIPE) as child: ...

Only a parent is told how a process ended: so between the two stands one that does nothing but wait for the child.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import types
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: What children import.
IMPORTED = ["anyio._backends._asyncio", "asyncio", "sqlite3", "structlog", "durable"]


# --- in the tests ------------------------------------------------------------------------------------------


class Popen(subprocess.Popen):
    """As the one of `subprocess`: for a command that begins with `sys.executable`."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        """As subprocess does it, with another way to start it."""
        _, _, _, *pipes, _restore, _gid, _gids, _uid, _umask, session, _group = rest
        inputs, _, _, output, _, errors = pipes
        self._status, theirs = socket.socketpair()
        job = {
            "arguments": [os.fspath(each) for each in args[1:]],
            "env": dict(os.environ if env is None else env),
            "cwd": os.fspath(cwd or os.getcwd()),
            "session": session,
        }
        with theirs:
            files = [own if given == -1 else given for given, own in ((inputs, 0), (output, 1), (errors, 2))]
            _Nursery.get().ask(json.dumps(job).encode(), [theirs.fileno(), *files])
        self._close_pipe_fds(*pipes)
        self.pid = _number(self._status)
        self._child_created = True

    def _try_wait(self, flags):
        """Its pid and wait status; the pid is 0 if *flags* say not to wait, and it has not ended."""
        self._status.settimeout(0.0 if flags & os.WNOHANG else None)
        try:
            status = _number(self._status)
        except BlockingIOError:
            return 0, 0
        self._status.close()
        return self.pid, status

    def _internal_poll(self, **_):
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode


def run(command, *, input=None, capture_output=False, timeout=None, check=False, **options):
    """As `subprocess.run`."""
    if capture_output:
        options["stdout"] = options["stderr"] = subprocess.PIPE
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Popen(command, **options) as process:
        try:
            output, errors = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, output, errors)
    if check:
        done.check_returncode()
    return done


def _number(status):
    """What `wait_for` tells next."""
    told = status.recv(4)
    assert told, "who waited for the child was killed"
    return int.from_bytes(told, "big")


class _Nursery:
    """The process that children are forked from: started with the first, and ended with this one."""

    _only = None

    @classmethod
    def get(cls):
        if cls._only is None:
            cls._only = cls()
        return cls._only

    def __init__(self):
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        atexit.register(self._end)

    def ask(self, job, files):
        """Have *job* begun, with *files*: that of its status, and its input, output and errors."""
        socket.send_fds(self._control, [len(job).to_bytes(4, "big")], files)
        self._control.sendall(job)

    def _end(self):
        self._control.close()
        self._process.wait()


# --- in the process that children are forked from ------------------------------------------------------------


def serve(control):
    """Fork at each request; returns in a child, with what it is to do, and with None when all is over."""
    for name in IMPORTED:
        importlib.import_module(name)
    durable = sys.modules["durable"]
    for name in durable.__all__:
        getattr(durable, name)
    gc.collect()
    gc.freeze()  # else the first collection of each child would copy all pages
    while True:
        size, files, *_ = socket.recv_fds(control, 4, 4)
        if not size:
            return None
        job = control.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
        waiting = os.fork()
        if not waiting:
            child = os.fork()
            if not child:
                control.close()
                return json.loads(job), files
            wait_for(child, socket.socket(fileno=files[0]))
        for file in files:
            os.close(file)
        while reaped():
            pass


def wait_for(child, status):
    """Tell the number of the *child*, and how it ended."""
    for number in range(3):
        os.close(number)
    status.sendall(child.to_bytes(4, "big"))
    status.sendall(os.waitpid(child, 0)[1].to_bytes(4, "big"))
    os._exit(0)


def reaped():
    """Whether one of those that wait has ended, and is gone."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def become(job, files, paths):
    """What Python does where it starts, with the same arguments."""
    os.close(files[0])
    for number, file in enumerate(files[1:]):
        os.dup2(file, number)
        os.close(file)
    if job["session"]:
        os.setsid()
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    first, *arguments = job["arguments"]
    sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *paths]
    if first == "-c":
        code, *arguments = arguments
        sys.argv[:] = ["-c", *arguments]
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), vars(main))
    elif first == "-m":
        module, *arguments = arguments
        sys.argv[:] = [module, *arguments]
        sys.path.insert(0, "")
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = [first, *arguments]
        sys.path.insert(0, str(Path(first).parent))
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        main.__file__ = first
        exec(compile(Path(first).read_bytes(), first, "exec"), vars(main))


if __name__ == "__main__":
    own = {str(Path(__file__).parent), str(ROOT)}
    if (found := serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        become(*found, [path for path in sys.path if path not in own])

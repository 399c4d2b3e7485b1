"""
A disk as slow as another one: each sync of a process takes at least so long.

How engines compare depends on the disk more than on anything else: one that syncs each step of each run for itself
loses twice as much on a disk that is twice as slow, one that gathers them loses nearly nothing. Here syncs may take 0.1
ms, on the volumes of a cloud 1 ms. So that both can be measured on one machine, and compared with figures of another
one, `fsync` and `fdatasync` are those of a small library that is loaded before libc (Linux, with a C compiler), in
whatever language the engine is written. They sync first, and then wait for what is left of the time.
"""

import os
import subprocess
import sys
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

static int slowly(const char *name, int file) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += atol(getenv("SLOW_DISK_NS"));
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    int done = ((int (*)(int)) dlsym(RTLD_NEXT, name))(file), error = errno;
    prctl(PR_SET_TIMERSLACK, 1);  /* Linux wakes a thread up to 50 us late, unless it is told not to */
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0) == EINTR) {}
    errno = error;
    return done;
}

int fsync(int file) { return slowly("fsync", file); }
int fdatasync(int file) { return slowly("fdatasync", file); }
"""


def slow_disk(milliseconds: float, folder: Path) -> dict[str, str]:
    """
    What the environment of a process needs, so that each of its syncs takes at least *milliseconds*.

    Args:
        milliseconds: 0 leaves the disk as it is.
        folder: Where the library is built.

    Raises:
        SystemExit: There is no `cc`, or this is not Linux.
    """
    if not milliseconds:
        return {}
    if sys.platform != "linux":
        sys.exit("--sync-ms works on Linux alone: it loads a library before libc")
    library = folder / "slow_disk.so"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-O2", "-shared", "-fPIC", "-x", "c", "-", "-o", library, "-ldl"]
    try:
        subprocess.run(command, input=SOURCE, text=True, check=True)
    except FileNotFoundError:
        sys.exit("--sync-ms needs a C compiler that is called cc")
    before = [os.environ["LD_PRELOAD"]] if os.environ.get("LD_PRELOAD") else []
    return {"LD_PRELOAD": ":".join([str(library), *before]), "SLOW_DISK_NS": str(round(milliseconds * 1e6))}

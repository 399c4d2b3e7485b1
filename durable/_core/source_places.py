"""
Places in code, as frames name them, also those of a frozen program.

There is no source in a frozen program, and its frames name files relative to where it was built ("rides.py"),
whatever ``__file__`` says. A file of that name in the current folder is another one.
"""

from __future__ import annotations

import os
from typing import Final


def has_source(file: str) -> bool:
    """Whether source may be looked for where frames say *file*: a full path, or what a shell keeps ("<stdin>")."""
    return os.path.isabs(file) or file.startswith("<")


#: The folder of our own code.
OURS: Final = os.path.dirname(os.path.dirname(has_source.__code__.co_filename)) + os.sep
_STDLIB: Final = os.path.dirname(os.__file__) + os.sep
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def is_library(file: str) -> bool:
    """Whether the code where frames say *file* is none of an application: ours, the standard library's, a package's."""
    return file.startswith((OURS, _STDLIB, "<frozen ")) or any(part in file for part in _INSTALLED)


def is_generated(file: str) -> bool:
    """Whether there is no such file: a dataclass or an attrs class has such methods."""
    return file == "<string>" or file.startswith("<attrs ")


#: In a line of workflow code: what it reads outside does no harm.
FINE: Final = "# durable: ok"

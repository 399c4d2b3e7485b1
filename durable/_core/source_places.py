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

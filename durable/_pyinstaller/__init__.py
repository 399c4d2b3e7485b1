"""
What PyInstaller has to know about `durable`, so that `pyinstaller --onefile app.py` needs no options.

PyInstaller finds this folder by our entry point ``pyinstaller40``, and runs its ``hook-*.py`` when it
builds; what is in ``rthooks`` runs first in the program that was built. Nothing else imports this.
"""

from __future__ import annotations

import os


def get_hook_dirs() -> list[str]:
    """The folder of our hooks."""
    return [os.path.dirname(__file__)]

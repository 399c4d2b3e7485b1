"""
What PyInstaller has to be told about `durable`, so that `pyinstaller --onefile app.py` needs no options.

PyInstaller finds this folder by our entry point ``pyinstaller40``, and runs its ``hook-*.py`` when it builds.
A program that was built does not hold it, and nothing else imports it.
"""

from __future__ import annotations

import os


def get_hook_dirs() -> list[str]:
    """The folder of our hooks."""
    return [os.path.dirname(__file__)]

"""
The folder of a journal: whether what is missing in it was deleted, or is out of sight together with its folder.

A volume that is unmounted for a moment, a folder that is moved aside by a backup: the files are what they were, we hold
them open, and nobody else sees them under their names.
"""

from __future__ import annotations

import os
from typing import Final


class Folder:
    """The folder of the file at *path*, as it is now."""

    def __init__(self, path: str) -> None:
        self.path: Final = os.path.dirname(path)
        self._known = self._look()

    def is_away(self) -> bool:
        """Whether there is nothing under its name, or another folder."""
        known, found = self._known, self._look()
        return known is not None and (found is None or not os.path.samestat(found, known))

    def _look(self) -> os.stat_result | None:
        try:
            return os.stat(self.path)
        except OSError:
            return None

"""
Copies of a journal's file, taken at each COMMIT: what a kill at that moment leaves behind.
"""

import shutil
from pathlib import Path

from durable._shell.storage import connections, database


class Copies:
    """
    The file at each COMMIT of the engine that has it open, from the first run on.

    Args:
        monkeypatch: Undoes the hook; copying ends with it.
        folder: Where the copies go.
        before: Copy before each COMMIT too: what it was to write is lost, some of it perhaps in the WAL.
    """

    def __init__(self, monkeypatch, folder, *, before=False):
        self.paths = []
        real = connections.commit

        def commit(conn, path):
            if before and _has_runs(conn):
                # Byte by byte: SQL on this connection would see what is not committed.
                self.paths.append(folder / f"{len(self.paths)}-before.db")
                for suffix in ("", "-wal"):
                    if (source := Path(f"{path}{suffix}")).exists():
                        shutil.copyfile(source, f"{self.paths[-1]}{suffix}")
            real(conn, path)
            if _has_runs(conn):
                self.paths.append(folder / f"{len(self.paths)}.db")
                conn.execute("VACUUM INTO ?", (str(self.paths[-1]),))

        for module in (connections, database):
            monkeypatch.setattr(module, "commit", commit)


def _has_runs(conn):
    """Whether anybody may have been told of a run."""
    return conn.execute("SELECT 1 FROM durable_runs LIMIT 1").fetchone() is not None

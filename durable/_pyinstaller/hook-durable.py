"""
Run by PyInstaller when a program imports `durable`: what is loaded by name, and so not seen by it.

`durable/__init__.py` loads its public names at their first use, the command line the module of the command that
was asked for, anyio its backend, and ``durable version`` the metadata of the distribution.
"""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata


def _is_run(name: str) -> bool:
    """Not the build's own hooks; nor the test kit, unless the program itself imports it (pytest would come along)."""
    return not name.startswith(("durable._pyinstaller", "durable.testing"))


hiddenimports = [*collect_submodules("durable", filter=_is_run), "anyio._backends._asyncio"]
datas = collect_data_files("durable") + copy_metadata("durable-asyncio")

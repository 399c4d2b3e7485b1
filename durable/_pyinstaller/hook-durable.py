"""
Run by PyInstaller when a program imports `durable`: what is loaded by name, and so not seen by it.

`durable/__init__.py` loads its public names at their first use, the command line the module of the command that
was asked for, anyio its backend, and ``durable version`` the metadata of the distribution.
"""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

#: The build's own hooks; and what would bring pytest, OpenTelemetry, Pydantic AI or a web server along. The program
#: has what it imports itself: with `durable.web` also `durable ui`, see the hook of that.
NOT_ALONG = (
    "durable._pyinstaller", "durable.testing", "durable.telemetry", "durable.metrics", "durable.pydantic_ai",
    "durable.web", "durable._cli.commands.debug.ui",
)  # fmt: skip


def _is_run(name: str) -> bool:
    """Whether it belongs into every program, also into one that does not import it itself."""
    return not name.startswith(NOT_ALONG)


hiddenimports = [*collect_submodules("durable", filter=_is_run), "anyio._backends._asyncio"]
datas = collect_data_files("durable") + copy_metadata("durable-asyncio")

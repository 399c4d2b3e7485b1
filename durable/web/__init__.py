"""
A dashboard in the browser: every run, why it waits, its timeline, and the time-travel debugger.

    from starlette.applications import Starlette
    from starlette.routing import Mount
    from durable.web import dashboard

    app = Starlette(routes=[Mount("/durable", dashboard(engine))])

An ASGI application, without a build step, a CDN or a database of its own. It needs the extra `web`
(``pip install durable-asyncio[web]``). ``durable ui --db rides.db`` serves it alone, beside an engine or without one.

Start with `application`, which page a request is for; then `guard`, who may have it, `source`, what it is read from (a
`journal`, or a `cluster`), and `pages`.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

try:
    import jinja2 as _jinja2
    import starlette as _starlette
except ImportError as _error:
    _msg = "durable.web needs Starlette and Jinja2: pip install 'durable-asyncio[web]'"
    raise ImportError(_msg) from _error

from durable._shell.handles.journal import JournalHandle
from durable.web.application import Dashboard
from durable.web.cluster import Cluster, ClusterSource
from durable.web.guard import Access, Authorize
from durable.web.journal import App, GivenJournal, Journal
from durable.web.source import Source

if TYPE_CHECKING:
    _ = (_jinja2, _starlette)

__all__ = ["Access", "App", "Authorize", "Cluster", "Dashboard", "Shown", "dashboard"]

#: What a dashboard may be of.
Shown: TypeAlias = "GivenJournal | Cluster"


def dashboard(
    shown: Shown,
    *,
    authorize: Authorize | None = None,
    app: App = None,
    title: str | None = None,
    hosts: Iterable[str] | None = None,
) -> Dashboard:
    """
    An ASGI application that shows a journal, or the runs of a cluster.

    It reads the file itself, beside the process that executes it. Nobody can change anything unless *authorize* says
    so: then what is asked for (cancel, retry, signal, ...) is recorded as a `Client` would have it. Runs of a cluster
    are only looked at, whatever *authorize* says.

    Args:
        shown: An `Engine`, a `Service` or a `Client`, the path of a journal, or a `durable.temporal.TemporalEngine`.
        authorize: Called with each request (a Starlette `Request`; may be async): "write", "read", or None, which is
            refused. Without it, everybody whom the host lets through may read.
        app: Whose code the debugger walks through: ``"pkg.mod"``, a module, or definitions; by default those of the
            engine. Nothing of it is executed but workflow code, which is replayed.
        title: What the pages are called; by default the name of the file.
        hosts: Names that it answers to. For one that listens on the machine itself: `durable.web.guard.LOCAL_HOSTS`.

    Raises:
        UsageError: The journal is in memory, and no engine was given.
        DefinitionError: The definitions of *app* contradict each other.
    """
    if isinstance(shown, (JournalHandle, str, PathLike)):
        source: Source = Journal(shown, app)
    else:
        source = ClusterSource(shown, app)
    return Dashboard(source, authorize, title, None if hosts is None else frozenset(hosts))

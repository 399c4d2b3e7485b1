"""
What type checkers must accept where the extra `temporal` is installed: `make test-temporal`. Never run.
"""

from durable.temporal import TemporalEngine
from durable.web import Dashboard, dashboard


def shown(engine: TemporalEngine) -> Dashboard:
    """The engine of a cluster is a `durable.web.Cluster`."""
    return dashboard(engine, title="Rides")

"""
Without the extra `temporal` these tests are left out; but not by `make test-temporal`, which installs it.
"""

import importlib.util
import os

if importlib.util.find_spec("temporalio") is None and not os.environ.get("DURABLE_TEMPORAL"):
    collect_ignore_glob = ["test_*.py"]
else:
    from tests.temporal.fixtures import address, client, either_engine, engines, queue

    __all__ = ["address", "client", "either_engine", "engines", "queue"]

"""
Without the extra `temporal` these tests are left out; but not by `make test-temporal`, which installs it.
"""

import importlib.util
import os

import pytest

from tests.temporal import cases

if importlib.util.find_spec("temporalio") is None and not os.environ.get("DURABLE_TEMPORAL"):
    collect_ignore_glob = ["test_*.py", "scenarios/*"]
else:
    from tests.temporal.fixtures import address, client, either_engine, engines, queue

    __all__ = ["address", "client", "either_engine", "engines", "queue"]


def pytest_addoption(parser):
    """
    What writes the table of cases.
    """
    parser.addoption("--write-cases", action="store_true", help="write the table into README.md")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """
    All cases are noted; those about a file are run where they stand, in `tests/scenarios`.
    """
    cases.collect(config, items)
    about_files = [item for item in items if "/temporal/" in item.nodeid and item.get_closest_marker("needs_a_file")]
    config.hook.pytest_deselected(items=about_files)
    items[:] = [item for item in items if item not in about_files]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """
    How a case has ended.
    """
    report = yield
    cases.note(item.config, item, report)
    return report


def pytest_sessionfinish(session):
    """
    The table of cases, if that was asked for.
    """
    if session.config.getoption("--write-cases"):
        cases.write(session.config)

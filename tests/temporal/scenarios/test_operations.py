"""
The scenarios of `tests/scenarios/test_operations.py`, on either engine.
"""

from tests.scenarios.test_operations import *  # noqa: F403

"""
The scenarios of `tests/scenarios/test_iteration.py`, on either engine.
"""

from tests.scenarios.test_iteration import *  # noqa: F403

"""
The scenarios of `tests/scenarios/test_awaiting.py`, on either engine.
"""

from tests.scenarios.test_awaiting import *  # noqa: F403

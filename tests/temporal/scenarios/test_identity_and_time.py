"""
The scenarios of `tests/scenarios/test_identity_and_time.py`, on either engine.
"""

from tests.scenarios.test_identity_and_time import *  # noqa: F403

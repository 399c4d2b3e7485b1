"""
The scenarios of `tests/scenarios/test_hard_cases.py`, on either engine.
"""

from tests.scenarios.test_hard_cases import *  # noqa: F403

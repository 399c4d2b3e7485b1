"""
The scenarios of `tests/scenarios/test_batches.py`, on either engine.
"""

from tests.scenarios.test_batches import *  # noqa: F403

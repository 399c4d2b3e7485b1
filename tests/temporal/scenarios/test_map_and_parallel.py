"""
The scenarios of `tests/scenarios/test_map_and_parallel.py`, on either engine.
"""

from tests.scenarios.test_map_and_parallel import *  # noqa: F403

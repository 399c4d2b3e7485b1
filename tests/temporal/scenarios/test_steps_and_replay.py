"""
The scenarios of `tests/scenarios/test_steps_and_replay.py`, on either engine.
"""

from tests.scenarios.test_steps_and_replay import *  # noqa: F403

"""
Random programs, on a real engine: whatever Hypothesis writes ends, and a replay is the same.
"""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings

from durable import Engine, RunFailedError, replay
from durable.testing.strategies import SIGNALS, coroutine_program, definitions, generator_program, programs


async def ended(form, program):
    """
    The history of a run of a program, to its end; signals are sent until it has ended.
    """
    async with Engine(":memory:", definitions, cleanup_timeout=1.0) as engine:
        return await engine.dry_run(
            form(program),
            stand_ins={
                "echo": lambda value: value,
                "fails": fail(ValueError),
                "retried": fail(LookupError),
                "insert": lambda value: value,
                "child": lambda value: value,
                "broken_child": fail(KeyError),
            },
            signals={name: list(range(50)) for name in SIGNALS},
        )


def fail(kind):
    def stand_in(value):
        raise kind(value)

    return stand_in


@pytest.mark.parametrize("form", [coroutine_program, generator_program])
@given(programs(max_leaves=5))
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_a_program_of_whatever_shape_ends_on_an_engine(form, program):
    """
    It succeeds, or fails by an error that one of its steps raised; its history replays.
    """
    dry = asyncio.run(ended(form, program))
    assert dry.status in ("succeeded", "failed"), dry.why
    assert replay(dry, form).verify().ended


async def test_a_real_engine_runs_programs(engines):
    """
    `definitions` is all that an engine needs.
    """
    engine = await engines.memory(*definitions)
    assert await engine.run(coroutine_program([["step", 1], ["try", [["fails", 2]]]])) == "[1, 'ValueError(2)']"
    with pytest.raises(RunFailedError, match="KeyError"):
        await engine.run(generator_program([["broken child", 3]]))
    with pytest.raises(RunFailedError, match="no statement of a program"):
        await engine.run(coroutine_program([["nonsense"]]))

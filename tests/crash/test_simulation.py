"""
Simulation: programs that Hypothesis writes, in any order of their tasks, with faults anywhere, and time that jumps.

One seed decides the order of tasks that are ready at once, and the faults; the same seed gives the same trace. A
program and seed that fail are shrunk by Hypothesis, and kept here as an example for ever.
"""

import hashlib
import os
import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from durable.testing import CONSISTENT, STRICT, Scenario, journal_lines
from durable.testing._crash.faults import KINDS, pairs_of
from durable.testing.strategies import coroutine_program, definitions, generator_program, programs

#: Statements whose outcome is a matter of what comes first; of a fast gather, what it cancels.
TIMED = ("race", "timeout", "signal or not", "now", "fast")
#: `make soak` simulates more.
OFTEN = int(os.environ.get("DURABLE_SIMULATIONS", "1"))
WORKFLOWS = (coroutine_program, generator_program)


def is_timed(program):
    """
    Whether a fault may legally change what a program sees.
    """
    text = repr(program)
    return any(f"'{name}'" in text for name in TIMED)


def scenario_of(program, seed):
    dice = random.Random(seed)
    return Scenario(
        dice.choice(WORKFLOWS)(program),
        definitions,
        signals={"a": list(range(100)), "b": list(range(100, 200))},
        order=seed,
        concurrency=dice.choice([1, 3, 100]),
        keep_resident=dice.choice([0, 5]),
        invariants=CONSISTENT if is_timed(program) else None,
    ), dice


def simulate(program, seed, faults=4, pairs=2):
    """
    Play *program* with faults drawn by *seed*; a hash of all the journals that it left.
    """
    scenario, dice = scenario_of(program, seed)
    everywhere = scenario.faults(KINDS)
    plays = [(fault,) for fault in dice.sample(everywhere, min(faults, len(everywhere)))]
    trace = hashlib.sha256()
    for each in [*plays, *pairs_of(everywhere, pairs, seed)]:
        outcome = scenario.strike(*each)
        for name, run in outcome.runs.items():
            trace.update(f"{name} {each} {journal_lines(run.events)}".encode())
    return trace.hexdigest()


@settings(max_examples=12 * OFTEN)
@given(programs(), st.integers(0, 2**32))
@example([["step", 1], ["sleep", 5], ["child", 2]], 0)
@example([["gather", "fast", [[["broken child", 0]], [["for each", 0], ["broken child", 0]]]]], 0)
def test_any_program_survives_faults_anywhere_in_any_order(program, seed):
    """
    Faults that nobody may notice change nothing; after others the journal and its runs agree.
    """
    simulate(program, seed)


@settings(max_examples=3 * OFTEN)
@given(programs(), st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_trace(program, seed):
    """
    To the byte, attempts and instants included: what was found once is found again.
    """
    assert simulate(program, seed, 2, 1) == simulate(program, seed, 2, 1)


def test_a_seed_decides_the_order():
    """
    Children of one parent end in another order under another seed; under none in that of asyncio.
    """
    program = [["gather", "all", [[["child", n]], [["child", n + 10]], [["child", n + 20]]]] for n in range(3)]
    traces = set()
    for seed in range(6):
        scenario = Scenario(generator_program(program), definitions, order=seed, invariants=STRICT)
        outcome = scenario.undisturbed().outcome
        traces.add("\n".join(journal_lines(outcome.root.events)))
    assert len(traces) > 1

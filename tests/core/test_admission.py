"""
Admission: who may become active, decided without an event loop.
"""

import pytest

from durable._core.admission import CANDIDATES, Admission, Queue
from durable.errors import DefinitionError


def admit_all(admission: Admission[str]) -> list[str]:
    found = []
    while (item := admission.admit()) is not None:
        found.append(item)
    return found


def offer(admission: Admission[str], run: int, *, queue: str = "q", priority: int = 0, ready_at: float = 0.0) -> None:
    admission.offer(queue, run, priority, ready_at, f"{queue}{run}")


def test_higher_priority_goes_first_then_the_longest_waiting():
    """
    Within a queue: priority, then how long a run is ready, then its number.
    """
    admission: Admission[str] = Admission([], 10)
    offer(admission, 1, ready_at=5.0)
    offer(admission, 2, ready_at=3.0)
    offer(admission, 3, ready_at=9.0, priority=1)
    offer(admission, 4, ready_at=3.0)
    assert admit_all(admission) == ["q3", "q2", "q4", "q1"]


def test_a_queue_admits_no_more_than_its_concurrency():
    """
    A slot is free again once its run is released.
    """
    admission: Admission[str] = Admission([Queue("q", concurrency=2)], 10)
    for run in range(1, 5):
        offer(admission, run, ready_at=run)
    assert admit_all(admission) == ["q1", "q2"]
    admission.release(1)
    assert admit_all(admission) == ["q3"]


def test_the_engine_admits_no_more_than_its_concurrency():
    """
    The slots of all queues together are bounded too.
    """
    admission: Admission[str] = Admission([], 3)
    for run in range(1, 6):
        offer(admission, run, queue=f"q{run % 2}", ready_at=run)
    assert len(admit_all(admission)) == 3
    assert admission.active == 3


def test_queues_take_turns():
    """
    A queue with many ready runs does not keep another waiting.
    """
    admission: Admission[str] = Admission([], 4)
    for run in range(1, 10):
        offer(admission, run, queue="busy")
    offer(admission, 10, queue="quiet")
    assert "quiet10" in admit_all(admission)


def test_a_run_is_a_candidate_once():
    """
    A second offer of a candidate, or of an active run, changes nothing.
    """
    admission: Admission[str] = Admission([], 4)
    offer(admission, 1)
    offer(admission, 1)
    assert admit_all(admission) == ["q1"]
    offer(admission, 1)
    assert admit_all(admission) == []


def test_candidates_are_bounded_and_the_rest_is_fetched():
    """
    What finds no place is remembered as "more", and asked for once the candidates are used up.
    """
    admission: Admission[str] = Admission([], CANDIDATES * 3)
    for run in range(1, CANDIDATES + 500):
        offer(admission, run, ready_at=run)
    assert len(admit_all(admission)) == CANDIDATES
    assert admission.wanting() == ["q"]


def test_all_runs_that_a_look_up_found_become_candidates():
    """
    Offered after "more" was taken back, none is turned away, in whatever order they come.
    """
    admission: Admission[str] = Admission([], CANDIDATES * 3)
    admission.found_more("q", more=True)
    admission.found_more("q", more=False)
    for run in range(1, 200):
        offer(admission, run, ready_at=run)
    admission.found_more("q", more=True)
    assert len(admit_all(admission)) == 199


def test_what_comes_after_the_last_candidate_waits_in_the_file_while_that_holds_more():
    """
    Otherwise a new run would overtake older ones that are not in memory; a higher priority may.
    """
    admission: Admission[str] = Admission([], CANDIDATES)
    offer(admission, 1, ready_at=1.0)
    offer(admission, 2, ready_at=2.0)
    admission.found_more("q", more=True)
    offer(admission, 9, ready_at=9.0)
    offer(admission, 8, ready_at=8.0, priority=5)
    assert admit_all(admission) == ["q8", "q1", "q2"]


def test_a_paused_queue_admits_nothing_and_wants_nothing():
    """
    Until it is resumed.
    """
    admission: Admission[str] = Admission([], 4)
    offer(admission, 1)
    admission.pause("q", paused=True)
    admission.found_more("q", more=True)
    assert admit_all(admission) == []
    assert admission.wanting() == []
    admission.pause("q", paused=False)
    assert admit_all(admission) == ["q1"]


def test_a_withdrawn_run_is_not_admitted():
    """
    One that was paused before its turn came.
    """
    admission: Admission[str] = Admission([], 4)
    offer(admission, 1)
    offer(admission, 2)
    admission.withdraw("q", 1)
    assert not admission.is_candidate(1)
    assert admit_all(admission) == ["q2"]


@pytest.mark.parametrize("wrong", [0, -1])
def test_concurrency_of_less_than_one_is_refused(wrong):
    """
    It would wait for ever.
    """
    with pytest.raises(DefinitionError):
        Queue("q", concurrency=wrong)
    with pytest.raises(DefinitionError):
        Admission([], wrong)

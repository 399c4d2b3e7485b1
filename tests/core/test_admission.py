"""
Admission: who may become active, decided without an event loop.
"""

from datetime import timedelta

import pytest

from durable._core.admission import BY_LABEL, CANDIDATES, Admission, Places, Queue
from durable._core.policies.limits import Limit, Rate
from durable.errors import CapExceededError, DefinitionError


def admit_all(admission: Admission[str]) -> list[str]:
    found = []
    while (item := admission.admit(0.0)) is not None:
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


@pytest.mark.parametrize("wrong", [0, -1, "5", True, 2.5])
def test_concurrency_of_less_than_one_is_refused(wrong):
    """
    It would wait for ever.
    """
    with pytest.raises(DefinitionError):
        Queue("q", concurrency=wrong)
    with pytest.raises(DefinitionError):
        Admission([], wrong)


# --- fairness -------------------------------------------------------------------------------------


def test_ten_runs_alternate_with_ten_thousand():
    """
    Start-time fair queueing: B's runs begin at today's virtual time, not behind all of A's.
    """
    places = Places()
    admission: Admission[str] = Admission([Queue("q", concurrency=1)], 10, places)
    file = [(places.place("q", "A", None, {}), f"A{number}") for number in range(10_000)]
    for run, (place, name) in enumerate(file):
        admission.offer("q", run, 0, 0.0, name, place=place)
    order = [admission.admit(0.0)]
    admission.release(0)
    for number in range(10):
        run = 20_000 + number
        admission.offer("q", run, 0, 1.0, f"B{number}", place=places.place("q", "B", None, {}))
    numbers = {name: run for run, (_, name) in enumerate(file)} | {f"B{n}": 20_000 + n for n in range(10)}
    for _ in range(20):
        order.append(name := admission.admit(0.0))
        assert name is not None
        admission.release(numbers[name])
    assert [name for name in order if name and name[0] == "B"] == [f"B{n}" for n in range(10)]
    assert [name for name in order if name and name[0] == "A"] == [f"A{n}" for n in range(11)]


def test_children_of_one_parent_are_a_group():
    """
    Those of another parent, and plain starts, begin beside them.
    """
    places = Places()
    many = [places.place("q", "child", 1, {}) for _ in range(1000)]
    assert many == sorted(many)
    assert places.place("q", "child", 2, {}) == places.place("q", "other", None, {}) == many[0]
    assert places.place("another queue", "child", 1, {}) == many[0]


def test_the_order_within_a_group_holds_whatever_virtual_time_is():
    """
    A later run of a group never gets a lower place; a group that was idle begins at virtual time.
    """
    places = Places()
    first = [places.place("q", "A", None, {}) for _ in range(5)]
    places.admitted("q", first[2])
    later = places.place("q", "A", None, {})
    assert later > first[-1]
    assert places.place("q", "B", None, {}) == first[2] + 1
    places.admitted("q", first[0])
    assert places.place("q", "C", None, {}) == first[2] + 1, "virtual time does not go back"


def test_what_is_remembered_of_groups_is_bounded(monkeypatch):
    """
    Parents push out parents, not workflows.
    """
    monkeypatch.setattr("durable._core.admission.GROUPS", 100)
    places = Places()
    last = [places.place("q", "A", None, {}) for _ in range(50)][-1]
    for parent in range(1_000):
        places.place("q", "child", parent, {})
    assert places.place("q", "A", None, {}) == last + 1
    assert len(places._parents) == 100


def test_after_a_restart_places_go_on_where_they_were():
    """
    Behind the last of its group, from the first that has not begun; in an idle queue ahead of all before.
    """
    before = Places(1_000.0)
    ready = [before.place("q", "A", None, {}) for _ in range(10)]
    after = Places(1_001.0)
    after.recover("q", "A", ready[3], ready[-1])
    assert after.place("q", "A", None, {}) == ready[-1] + 1
    assert after.place("q", "B", None, {}) == ready[3] + 1
    assert after.place("idle", "A", None, {}) > ready[-1]


def test_the_values_of_a_label_take_turns():
    """
    Where the queue is fair by one: whatever the workflow or the parent. Those without it are as elsewhere.
    """
    places = Places(fair_by={"q": "tenant"})
    ada, bob = {"tenant": "ada", "x": "1"}, {"tenant": "bob"}
    many = [places.place("q", f"A{number % 3}", number % 2, ada) for number in range(10)]
    assert many == sorted(set(many))
    assert places.place("q", "A0", None, bob) == places.place("q", "A0", None, {}) == many[0]
    assert places.place("q", "A1", 1, {}) == places.place("q", "ada", None, {}) == many[0]
    assert places.place("q", "A0", None, {}) == many[1]
    assert places.place("another", "A", None, ada) == places.place("another", "B", None, ada) == many[0]


def test_after_a_restart_the_values_of_a_label_go_on_where_they_were():
    """
    And so do the workflows of those without the label.
    """
    after = Places(0.0, fair_by={"q": "tenant"})
    after.recover("q", f"{BY_LABEL}ada", 3.0, 9.0)
    after.recover("q", "ada", 4.0, 5.0)
    assert after.place("q", "A", None, {"tenant": "ada"}) == 10.0
    assert after.place("q", "ada", None, {}) == 6.0
    assert after.place("q", "A", None, {"tenant": "bob"}) == 4.0


@pytest.mark.parametrize("wrong", ["", 3, 'a"b', "x" * 201])
def test_what_a_queue_is_fair_by_is_the_name_of_a_label(wrong):
    """
    Refused where it is written.
    """
    with pytest.raises((DefinitionError, CapExceededError), match="fair_by"):
        Queue("q", fair_by=wrong)


def test_a_lower_place_takes_the_room_of_the_last_candidate():
    """
    The candidates in memory are those that go first; the rest are rows.
    """
    admission: Admission[str] = Admission([], CANDIDATES * 2)
    for run in range(CANDIDATES):
        admission.offer("q", run, 0, 0.0, f"A{run}", place=float(run))
    admission.offer("q", 9_999, 0, 1.0, "B", place=0.5)
    assert not admission.is_candidate(CANDIDATES - 1)
    assert admit_all(admission)[:3] == ["A0", "B", "A1"]
    assert admission.wanting() == ["q"]


# --- the rate of a queue ----------------------------------------------------------------------------


def rated(count: int = 2, per: float = 10.0) -> Admission[str]:
    return Admission([Queue("q", rate=Rate(count, per=per))], 100)


def test_a_rate_lets_so_many_begin_in_any_window():
    """
    A sliding window: the third begins when the first is as old as the window.
    """
    admission = rated()
    for run in range(1, 6):
        offer(admission, run, ready_at=run)
    assert [admission.admit(0.0), admission.admit(4.0), admission.admit(9.9)] == ["q1", "q2", None]
    assert admission.opens_at(9.9) == 10.0
    assert [admission.admit(10.0), admission.admit(13.9), admission.admit(14.0)] == ["q3", None, "q4"]


def test_a_woken_run_passes_a_rate_that_is_used_up():
    """
    It has begun before: it is no begin, and does not count as one.
    """
    admission = rated(1)
    offer(admission, 1)
    assert admission.admit(0.0) == "q1"
    offer(admission, 2, priority=5)
    admission.offer("q", 3, 0, 0.0, "woken", begun=True)
    assert admission.admit(1.0) == "woken"
    assert admission.admit(1.0) is None
    admission.offer("q", 4, 0, 0.0, "woken too", begun=True)
    assert admission.admit(10.0) == "q2"
    assert admission.admit(10.0) == "woken too"


def test_what_began_before_a_restart_counts():
    """
    As the file has it.
    """
    admission = rated()
    admission.started("q", [8.0, 3.0])
    offer(admission, 1)
    assert admission.admit(12.9) is None
    assert admission.opens_at(12.9) == 13.0
    assert admission.admit(13.0) == "q1"


def test_a_clock_set_back_does_not_stop_a_queue():
    """
    What began in the future began now: one window later the queue is open.
    """
    admission = rated(1)
    offer(admission, 1)
    offer(admission, 2)
    assert admission.admit(1_000.0) == "q1"
    assert admission.opens_at(5.0) == 15.0
    assert admission.admit(15.0) == "q2"


def test_nothing_opens_later_where_no_candidate_waits_for_a_rate():
    """
    No timer is set for a queue that is empty, paused or full.
    """
    admission = rated(1)
    offer(admission, 1)
    assert admission.admit(0.0) == "q1"
    assert admission.opens_at(0.0) is None
    offer(admission, 2)
    admission.pause("q", paused=True)
    assert admission.opens_at(0.0) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Rate(0, per=1),
        lambda: Rate(1.5, per=1),
        lambda: Rate(1, per=0),
        lambda: Rate(1, per=float("inf")),
        lambda: Limit("", concurrency=1),
        lambda: Limit("nothing"),
        lambda: Limit("x", concurrency=0),
        lambda: Limit("x", concurrency=True),
        lambda: Limit("x", rate=5),
        lambda: Limit("x", concurrency=1, on_conflict="queue"),
        lambda: Limit("x", rate=Rate(1, per=1), on_conflict="replace"),
        lambda: Queue("x", rate=5),
    ],
)
def test_wrong_numbers_are_refused_where_they_are_written(wrong):
    """
    With a sentence that says what was found.
    """
    with pytest.raises(DefinitionError, match=r"found|limits nothing|needs concurrency"):
        wrong()


def test_a_rate_takes_a_timedelta():
    """
    As every duration does.
    """
    assert Rate(3, per=timedelta(minutes=1)) == Rate(3, per=60)


def test_nobody_waits_where_there_is_no_candidate_and_the_file_holds_no_more():
    """
    Who became active waits no more; who stands behind a rate, or is only in the file, does.
    """
    admission: Admission[str] = Admission([Queue("q"), Queue("r", rate=Rate(1, per=60))], 10)
    assert admission.is_idle()
    offer(admission, 1)
    assert not admission.is_idle()
    assert admit_all(admission) == ["q1"]
    assert admission.is_idle()
    admission.found_more("q", more=True)
    assert not admission.is_idle()
    admission.found_more("q", more=False)
    admission.offer("r", 2, 0, 0.0, "woken", begun=True)
    assert not admission.is_idle()

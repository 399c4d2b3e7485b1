"""
Ids that the engine makes of others.
"""

from urllib.parse import quote

import pytest

from durable._core import run_ids
from durable._core.program.definition import check_run_id
from durable.errors import UsageError


@pytest.mark.parametrize("attempt, made", [(1, "order-7~.3.1"), (2, "order-7~.3.1-2")])
def test_ids_of_children_stand_in_a_url_as_they_are(attempt, made):
    """
    With their descendants and successors; and nobody can choose one.
    """
    child = run_ids.child("order-7", "3.1", attempt)
    assert child == made
    below = run_ids.successor(run_ids.child(child, "0", 1))
    assert below == f"{made}~.0~2"
    assert quote(below, safe="") == below
    with pytest.raises(UsageError, match="must not contain '~'"):
        check_run_id(child)


def test_ids_of_children_as_they_were_are_told_from_others():
    """
    By either sign: whose child it is, and what stands behind that.
    """
    assert run_ids.child("r", "0", 1, old=True) == "r/0"
    assert run_ids.child("r", "0", 2, old=True) == "r/0@2"
    for child, parent in [("r/0", "r"), ("r~.0", "r"), ("r/0~.1", "r/0"), ("r~2~.1", "r~2"), ("r", ""), ("r~2", "")]:
        assert run_ids.parent(child) == parent
        assert run_ids.below(child, "r") == (child[1:].lstrip("/~.") if child in ("r/0", "r~.0", "r/0~.1") else None)
        assert run_ids.is_old_child(child, "r") == child.startswith("r/")


def test_runs_that_continue_each_other_are_counted():
    """
    Children are none of them, whatever their position.
    """
    assert [run_ids.successor(each) for each in ("r", "r~2", "r~.0", "r~.0~9")] == ["r~2", "r~3", "r~.0~2", "r~.0~10"]
    assert [run_ids.predecessor(each) for each in ("r", "r~2", "r~.0", "r~.0~9")] == ["", "r", "", "r~.0"]

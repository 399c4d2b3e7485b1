"""
Edits of a workflow under a run that is half done: what `check` says of each, and how `patched` makes it safe.

The run is recorded by `before` up to its timer. Each row of the table is an edit of that code: the verdict, what
seems to have happened, where, and at which line of the new code (the one marked "here").
"""

import inspect

import pytest

from durable._core.authoring.decorators import step, workflow
from durable._core.authoring.flow import patched
from durable._core.authoring.op_constructors import gather, sleep
from durable._core.authoring.registry import Definitions
from durable._core.codec.codec import Codec
from durable._core.recorded.check import check_run
from durable._core.recorded.export_format import RunFacts, RunHistory
from durable.errors import NondeterminismError
from tests.core.drive import World


@step
def reserve(n: int) -> int:
    return n + 1


@step
def charge(n: int) -> int:
    return n * 10


@step
def notify(n: int) -> str:
    return f"notified {n}"


@step
def print_label(n: int) -> str:
    return f"label {n}"


@step
def audit(n: int) -> None: ...


@step
def bill(n: int) -> int:
    return n * 10


@step(name="bill", aliases=("charge",))
def bill_once_called_charge(n: int) -> int:
    return n * 10


async def label_of(n: int) -> str:
    return await print_label(n)


async def notified(n: int) -> str:
    return await notify(n)


# --- the code that recorded, and its edits --------------------------------------------------------------


async def before(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = await charge(reserved)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def inserted(n: int) -> list[str]:
    reserved = await reserve(n)
    await audit(reserved)  # here
    charged = await charge(reserved)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def inserted_and_patched(n: int) -> list[str]:
    reserved = await reserve(n)
    if patched("audit first"):
        await audit(reserved)
    charged = await charge(reserved)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def removed(n: int) -> list[str]:
    reserved = await reserve(n)
    told = await notify(reserved) if reserved > 1 else await print_label(reserved)  # here
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def removed_and_patched(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = reserved * 10
    if not patched("no charge"):
        charged = await charge(reserved)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def renamed(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = await bill(reserved)  # here
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def renamed_with_an_alias(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = await bill_once_called_charge(reserved)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def reordered(n: int) -> list[str]:
    charged = await charge(n)  # here
    reserved = await reserve(charged)
    told = await notify(reserved) if charged > 10 else await print_label(charged)
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def reordered_and_patched(n: int) -> list[str]:
    if patched("charge first"):
        charged = await reserve(await charge(n))
    else:
        charged = await charge(await reserve(n))
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def argument_changed(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = await charge(reserved + 100)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def member_added(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = await charge(reserved)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(notified(1), print_label(2), audit(9))  # here
    await sleep(60)
    await audit(3)
    return [told, *pair[:2]]


async def member_added_and_patched(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = await charge(reserved)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    more = [audit(9)] if patched("audit as well") else []
    pair = await gather(notified(1), print_label(2), *more)
    await sleep(60)
    await audit(3)
    return [told, *pair[:2]]


async def helper_changed(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = await charge(reserved)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(audited(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def audited(n: int) -> str:
    await audit(n)  # here
    return await notify(n)


async def helper_changed_and_patched(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = await charge(reserved)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(audited_if_patched(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def audited_if_patched(n: int) -> str:
    if patched("audit in the helper"):
        await audit(n)
    return await notify(n)


async def helper_extracted(n: int) -> list[str]:
    charged = await reserve_and_charge(n)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def reserve_and_charge(n: int) -> int:
    return await charge(await reserve(n))


async def timer_changed(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = await charge(reserved)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    pair = await gather(notified(1), print_label(2))
    await sleep(5)
    await audit(3)
    return [told, *pair]


async def branch_moved(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = await charge(reserved)
    if charged > 1_000_000:
        told = await notify(charged)
    else:
        told = await print_label(charged)  # here
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def branch_moved_and_patched(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = await charge(reserved)
    limit = 1_000_000 if patched("higher limit") else 10
    told = await notify(charged) if charged > limit else await print_label(charged)
    pair = await gather(notified(1), print_label(2))
    await sleep(60)
    await audit(3)
    return [told, *pair]


async def ends_early(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = await charge(reserved)
    told = await notify(charged) if charged > 10 else await print_label(charged)
    return [told, label_of.__name__]


async def raises(n: int) -> list[str]:
    reserved = await reserve(n)
    charged = {"charge": await charge(reserved)}["charged"]
    return [str(charged)]


# edit -> verdict, change, position, in whose code the line marked "here" is
TABLE = [
    (before, "same", "", "", None),
    (inserted, "diverged", "inserted", "1", inserted),
    (removed, "diverged", "removed", "1", removed),
    (renamed, "diverged", "renamed", "1", renamed),
    (renamed_with_an_alias, "same", "", "", None),
    (reordered, "diverged", "reordered", "0", reordered),
    (argument_changed, "same", "", "", None),
    (member_added, "diverged", "resized", "3", member_added),
    (helper_changed, "diverged", "inserted", "3.0.0", audited),
    (helper_extracted, "same", "", "", None),
    (timer_changed, "same", "", "", None),
    (branch_moved, "diverged", "branch", "2", branch_moved),
    (ends_early, "diverged", "removed", "3", None),
    (raises, "diverged", "removed", "2", None),
]
SAFE = [
    inserted_and_patched,
    removed_and_patched,
    renamed_with_an_alias,
    reordered_and_patched,
    argument_changed,
    member_added_and_patched,
    helper_changed_and_patched,
    helper_extracted,
    timer_changed,
    branch_moved_and_patched,
]


def half_done() -> World:
    """
    A run of `before` that waits for its timer.
    """
    world = World(workflow(name="order")(before)(3))
    world.begin()
    while not world.waits:
        assert world.happen()
    world.ex.close()
    return world


def checked(body, world: World):
    """
    What `check` says of *body* as today's code of the run.
    """
    facts = RunFacts(run_id="r", workflow="order", version=1, sort="workflow", status="waiting", created_at=1000.0)
    return check_run(RunHistory(facts, world.events), Definitions([workflow(name="order")(body)]), Codec())


def line_marked(fn) -> int:
    lines, first = inspect.getsourcelines(fn)
    (offset,) = [number for number, line in enumerate(lines) if line.rstrip().endswith("# here")]
    return first + offset


@pytest.mark.parametrize("edit, verdict, change, position, code", TABLE, ids=[row[0].__name__ for row in TABLE])
def test_check_says_what_happened_and_names_the_line(edit, verdict, change, position, code):
    """
    Each edit has its verdict; a divergence says what seems to have changed, at which position and line.
    """
    found = checked(edit, half_done())
    assert found.verdict == verdict, found.report
    assert found.ok is (verdict == "same")
    if verdict == "same":
        assert found.report == ""
        return
    error = found.error
    assert isinstance(error, NondeterminismError)
    assert (error.change, error.position) == (change, position), str(error)
    assert error.remedy in found.report
    assert error.hint in found.report
    if code is not None:
        assert error.requested_site == f"debug/test_edits.py:{line_marked(code)}"
        assert error.recorded_site.startswith("debug/test_edits.py:")


def test_changed_arguments_are_a_note_and_no_divergence():
    """
    What was recorded stands; the report names the position where today's code passes something else.
    """
    assert checked(argument_changed, half_done()).changed_arguments == ("1",)
    assert checked(before, half_done()).changed_arguments == ()


def test_a_divergence_tells_the_digests_of_both_arguments():
    """
    The recorded and the requested arguments are told apart in the report.
    """
    error = checked(inserted, half_done()).error
    assert error.recorded_digest
    assert error.requested_digest == error.recorded_digest  # both got what reserve returned
    assert f"arguments {error.recorded_digest[:8]}" in str(error)


def test_an_error_of_todays_code_is_told():
    """
    Code that raises where it used to go on is reported with what it raises.
    """
    assert "KeyError: 'charged'" in checked(raises, half_done()).report


@pytest.mark.parametrize("edit", SAFE)
def test_old_and_new_runs_both_finish_with_the_safe_form_of_an_edit(edit):
    """
    The half-done run goes on with the new code to the end it would have had; a new run of it ends, too.
    """
    old = half_done()
    old.op = workflow(name="order")(edit)(3)
    old.begin(old.events)
    assert old.run_on() == ["notified 40", "notified 1", "label 2"]
    new = World(workflow(name="order")(edit)(3))
    new.begin()
    new.run_on()
    again = checked(edit, new)
    assert again.ok, again.report


@pytest.mark.parametrize("edit", SAFE)
def test_a_patched_run_can_be_checked_whether_old_or_new(edit):
    """
    `check` counts who needs the old branch: the half-done run does, the new one does not.
    """
    old, new = checked(edit, half_done()), World(workflow(name="order")(edit)(3))
    new.begin()
    new.run_on()
    assert set(old.patches.values()) <= {False}
    assert set(checked(edit, new).patches.values()) <= {True}
    assert bool(old.patches) is edit.__name__.endswith("patched")

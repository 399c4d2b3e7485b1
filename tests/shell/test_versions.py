"""
Code that changes under open runs: versions side by side, old names, and what the engine says at opening.
"""

import pytest
from structlog.testing import capture_logs

from durable import Engine, Flow, Return, aliases, job, step, wait_for, workflow
from durable._core.authoring.registry import Definitions, collect
from durable.errors import DefinitionError

pytestmark = pytest.mark.anyio


class Declined(Exception):
    pass


@step
async def old_fee(cents: int) -> int:
    return cents + 1


@step(name="fee", aliases=("old_fee",))
async def fee(cents: int) -> int:
    return cents + 1


@step
async def tax(cents: int) -> int:
    return cents * 2


@workflow(name="bill")
async def bill_1(cents: int) -> Flow[str]:
    total: int = yield old_fee(cents)
    yield wait_for("pay")
    yield Return(f"one {total}")


@workflow(name="bill", version=2)
async def bill_2(cents: int) -> Flow[str]:
    taxed: int = yield tax(cents)
    yield wait_for("pay")
    yield Return(f"two {taxed}")


@workflow(name="invoice", aliases=("bill",))
async def invoice(cents: int) -> Flow[str]:
    total: int = yield fee(cents)
    yield wait_for("pay")
    yield Return(f"invoice {total}")


@workflow(name="invoice", version=2)
async def invoice_2(cents: int) -> Flow[str]:
    yield Return("new")


@job(name="mail", aliases=("send",))
async def mail(text: str) -> str:
    return f"mailed {text}"


@job(name="send")
async def send(text: str) -> str:
    return f"sent {text}"


@step
async def decline() -> None:
    raise Declined("no funds")


@workflow
async def pay() -> Flow[str]:
    try:
        yield decline()
    except Exception as error:
        yield wait_for("go on")
        yield Return(type(error).__name__)


# --- versions ------------------------------------------------------------------------------------------


async def test_runs_end_with_the_version_that_they_were_started_with(engines, reached):
    """
    The open run goes on with the old one, which is kept beside the new; a new run takes the one that is called.
    """
    before = await engines.file(bill_1)
    old = await before.start(bill_1(1))
    await reached(old, "waiting")
    await engines.crash(before)
    engine = await engines.file(bill_1, bill_2)
    new = await engine.start(bill_2(1))
    for run in (engine.get(old.id), new):
        await run.signal("pay")
    assert await engine.get(old.id).result(5) == "one 2"
    assert await new.result(5) == "two 2"
    assert [(await engine.get(run.id).info()).version for run in (old, new)] == [1, 2]


async def test_without_its_version_a_run_is_driven_by_the_newest_which_blocks_if_it_does_not_fit(engines, reached):
    """
    The newest code is tried; it asks for something else, so the run is blocked and names both versions of the code.
    """
    before = await engines.file(bill_1)
    old = await before.start(bill_1(1))
    await reached(old, "waiting")
    await engines.crash(before)
    engine = await engines.file(bill_2)
    await engine.get(old.id).signal("pay")
    await reached(engine.get(old.id), "blocked")
    assert "recorded step 'old_fee'" in await engine.get(old.id).why()
    await engines.crash(engine)
    restored = await engines.file(bill_1, bill_2)
    assert await restored.get(old.id).result(5) == "one 2"


def test_two_of_one_name_and_version_are_an_error():
    """
    The message names both places, and says how older code is kept.
    """
    other = workflow(name="bill")(bill_2.fn)
    with pytest.raises(DefinitionError, match=r"test_versions.py:\d+ and .*test_versions.py:\d+.*version="):
        collect([bill_1, other])
    assert collect([bill_1, bill_1, bill_2])["bill"] is bill_2


def test_an_alias_that_belongs_to_another_is_an_error():
    """
    An old name is either an alias or a definition, and of one definition only.
    """
    with pytest.raises(DefinitionError, match=r"'bill' is an alias of .*'invoice'.* belongs to 'bill'"):
        collect([invoice, bill_1])
    twin = job(name="post", aliases=("send",))(mail.fn)
    with pytest.raises(DefinitionError, match=r"'send' is an alias of .*belongs to 'mail'"):
        collect([mail, twin])
    with pytest.raises(DefinitionError, match="found the string 'send'"):
        job(name="post", aliases="send")(mail.fn)


def test_finding_a_definition_by_name_alias_and_version():
    """
    The very version if it is there, else the newest; old names lead to the new one.
    """
    known = Definitions([invoice, invoice_2, mail])
    assert known.find("invoice", 1) is invoice
    assert known.find("bill", 1) is invoice
    assert known.find("invoice", 7) is known.find("bill") is invoice_2
    assert known.find("send") is mail
    assert known.find("nothing") is None
    assert (len(known), sorted(known), len(known.all())) == (2, ["invoice", "mail"], 3)
    assert known.knows(invoice)
    assert not known.knows(bill_1)


# --- old names -----------------------------------------------------------------------------------------


async def test_a_renamed_workflow_and_step_take_over_what_was_recorded_under_the_old_names(engines, reached):
    """
    The open run of `bill` goes on as `invoice`, and its recorded step `old_fee` is what `fee` asks for.
    """
    before = await engines.file(bill_1)
    run = await before.start(bill_1(1))
    await reached(run, "waiting")
    await engines.crash(before)
    engine = await engines.file(invoice, invoice_2)
    await engine.get(run.id).signal("pay")
    assert await engine.get(run.id).result(5) == "invoice 2"


async def test_a_renamed_job_runs_what_was_queued_under_its_old_name(engines):
    """
    A job that had not begun under its old name is executed by the function of the new one.
    """
    before = await engines.file(send)
    await before.queue("default").pause()
    run = await before.start(send("a"))
    await engines.crash(before)
    engine = await engines.file(mail)
    await engine.queue("default").resume()
    assert await engine.get(run.id).result(5) == "mailed a"


async def test_a_renamed_exception_is_rebuilt_as_its_new_class(engines, reached, monkeypatch):
    """
    What was recorded under the old name comes back as the class that says it had it.
    """
    before = await engines.file(pay)
    run = await before.start(pay())
    await reached(run, "waiting")
    await engines.crash(before)
    monkeypatch.delitem(globals(), "Declined")

    @aliases(f"{__name__}:Gone", f"{__name__}:Declined")
    class Refused(Exception):
        pass

    engine = await engines.file(pay)
    await engine.get(run.id).signal("go on")
    assert await engine.get(run.id).result(5) == "Refused"
    assert Refused.__subclasses__() == []


def test_what_aliases_refuses():
    """
    Names that are none, and what is not a class.
    """
    with pytest.raises(DefinitionError, match=r"'Name' or 'module:Name', found 'a\.\.b'"):
        aliases("a..b")
    with pytest.raises(DefinitionError, match="decorates a class, found"):
        aliases("Old")(lambda: None)


# --- checking at opening -------------------------------------------------------------------------------


async def test_check_on_open_reports_every_run_that_would_break_at_once(engines, reached):
    """
    All are logged at opening, none is blocked or touched by that; `engine.check` says the same later.
    """
    before = await engines.file(bill_1, send)
    runs = [await before.start(bill_1(n)) for n in range(3)]
    for run in runs:
        await reached(run, "waiting")
    await engines.crash(before)
    with capture_logs() as logs:
        engine = await engines.file(bill_2, send, check_on_open=True)
    found = [entry for entry in logs if entry["event"] == "check.finding"]
    assert {entry["run_id"] for entry in found} == {run.id for run in runs}
    assert all("recorded step 'old_fee'" in entry["report"] for entry in found)
    assert [entry["checked"] for entry in logs if entry["event"] == "check.done"] == [3]
    assert [await engine.get(run.id).status() for run in runs] == ["waiting"] * 3
    report = await engine.check()
    assert (report.ok, report.counts, len(report.findings)) == (False, {"diverged": 3}, 3)


async def test_check_takes_ended_runs_only_if_asked_to(engines):
    """
    Open runs are what a deploy can break; with all=True whatever the file holds is replayed.
    """
    engine = await engines.memory(invoice_2, send)
    await engine.run(invoice_2(1))
    await engine.run(send("x"))
    assert (await engine.check()).counts == {}
    whole = await engine.check(all=True)
    assert whole.ok
    assert whole.counts == {"same": 2}


async def test_a_definition_that_is_gone_and_arguments_that_do_not_fit_are_findings(engines, reached):
    """
    "missing" and "unreadable" say so for runs that nothing could execute.
    """
    before = await engines.file(bill_1, send)
    await before.queue("default").pause()
    await before.start(bill_1(1))
    await before.start(send("text"))
    await engines.crash(before)

    @job(name="send")
    async def other(text: str, more: int) -> str:
        return text * more

    engine = Engine(engines.path, [other])
    async with engine:
        report = await engine.check()
    assert report.counts == {"missing": 1, "unreadable": 1}
    assert {finding.workflow: finding.verdict for finding in report.findings} == {
        "bill": "missing",
        "send": "unreadable",
    }
    assert "more" in next(finding.report for finding in report.findings if finding.workflow == "send")

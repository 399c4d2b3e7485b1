"""
An approval outlives the process that asked for it.
"""

from durable import Engine
from durable._shell.clock import SystemClock


async def test_the_engine_is_restarted_while_nobody_decides(example, tmp_db):
    """
    A signal that comes after a restart reaches the run that was freed before it.
    """
    async with Engine(tmp_db, [example.expense]) as engine:
        run = await engine.start(example.expense("Ada", 120), key="expense-1")
    async with Engine(tmp_db, [example.expense]) as engine:
        run = await engine.find("expense-1")
        await run.signal("decision", example.Decision(approved=True, by="Mia"))
        assert await run.result(timeout=5) == "approved by Mia"
        assert (await run.attributes())["stage"] == "approved by Mia"


class TomorrowsClock(SystemClock):
    def now(self):
        return super().now() + 86_400


async def test_a_reminder_that_came_due_while_nothing_ran(example, tmp_db, capsys):
    """
    It goes out as soon as an engine is there again, and the deadline counts from then.
    """
    async with Engine(tmp_db, [example.expense]) as engine:
        run = await engine.start(example.expense("Cyd", 30))
    async with Engine(tmp_db, [example.expense], clock=TomorrowsClock()) as engine:
        assert await engine.get(run.id).result(timeout=5) == "timed out"
    assert "Cyd is still waiting" in capsys.readouterr().out

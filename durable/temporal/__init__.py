"""
The same workflows on more than one machine: on a Temporal cluster. Needs the extra ``temporal``.

    from temporalio.client import Client
    from durable.temporal import TemporalEngine

    client = await Client.connect("localhost:7233")
    async with TemporalEngine(client, "rides", [ride, notify_drivers]) as engine:
        print(await engine.run(ride(42, "Main St 1"), key="ride-42"))

Not a line of a workflow changes. What cannot be on a server is refused when the engine is made, or at the line that
asks for it, and the message says what to use instead.
"""

from importlib.util import find_spec

if find_spec("temporalio") is None:
    _msg = "durable.temporal needs temporalio: pip install 'durable-asyncio[temporal]'"
    raise ImportError(_msg)

from durable.temporal._engine.engine import TemporalEngine
from durable.temporal._engine.handle import TemporalRun
from durable.temporal._histories.converting import journal_of
from durable.temporal._transactions.app_transactions import AppTransactions

__all__ = ["AppTransactions", "TemporalEngine", "TemporalRun", "journal_of"]

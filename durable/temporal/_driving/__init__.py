"""
One run, driven by a workflow of the server: decisions become activities, children and timers; outcomes arrivals.

`Execution.advance` stays the brain. Where an embedded engine commits a decision, the server records the commands that
it is made of; where that one replays its journal, the server gives the same arrivals again, to an execution with an
empty history. What is decided on the way is kept in memory as the journal that an embedded engine would have written.

The lines run in the SDK's own event loop, on a thread of its own: no input and output, clock or dice but the server's.

Start with `run_workflow`, `driver`.
"""

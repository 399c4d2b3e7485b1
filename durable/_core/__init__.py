"""
The part that decides: pure, synchronous, without clock, event loop, log, randomness or database.

Read in this order: `ops` (what a workflow may yield), `events` (what a journal holds),
`definition` (the decorators), `strand` (resumes user code), `nodes` (open commands and
groups), `execution` (arrivals in, decision out).
"""

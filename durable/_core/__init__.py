"""
The part that decides: pure, synchronous, the same answer each time it is asked.

It touches nothing outside of itself: no clock, event loop, log, randomness or database. Time and chance arrive as
arguments, so that a run and its replay are one computation. It runs on whichever thread asks: the event loop's, a
reader's, a debugger's. Rooms, from the ground up: `codec`, `program`, `journal`, `run`, `recorded`; below them
`statuses`, the states of a run, which all rooms speak of.

Start with `program`, what a workflow may say; then `run`, what becomes of it.
"""

"""
The part that decides: pure, synchronous, the same answer each time it is asked.

It touches nothing outside of itself: no clock, event loop, log, randomness or database. Time and chance arrive as
arguments, so that a run and its replay are one computation. It runs on whichever thread asks: the event loop's, a
reader's, a debugger's. Rooms, from the ground up: `codec`, `program`, `journal`, `run`, `recorded`. Below them stand
`statuses`, the states of a run, which all rooms speak of, what is known of the user's code as such (`source_places`,
`scope_check`, `outside`), and how records are made (`light_frozen`); above them what is decided about many runs
(`admission`, `suspicion`).

Start with `program`, what a workflow may say; then `run`, what becomes of it.
"""

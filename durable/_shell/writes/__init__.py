"""
Functions of an open transaction: all that ever changes a journal's rows.

They run on the writer's thread, many runs in one transaction, which is committed or rolled back by the caller. No
event loop, no log, no clock: "now" is an argument, and what the loop is to do afterwards is returned as effects,
because until the commit none of it is true.

Start with `turn_writes`, what one turn of a run changes; then `run_writes`, how runs come about.
"""

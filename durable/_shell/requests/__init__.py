"""
What can be asked of a journal from outside: a class for each request, with what it does, and how it travels.

What it does runs on the writer's thread, in the transaction of the process that records it: an engine's commit
group, or a client's own. What only the owner of the file knows comes as an argument; no event loop, no log, no clock.

Start with `request`, what a request is and how to add one; then `run_requests`; and `wire`, how they travel.
"""

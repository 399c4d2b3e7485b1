"""
Schedules, which are the server's: each tick is a small workflow that starts the run, so that overlaps are seen there.

Start with `tick_workflow`, `registering`.
"""

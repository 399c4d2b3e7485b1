"""
The machinery behind `every_crash`, `every_glitch` and `Scenario`: users import those, and nothing from here.

One play is some lives of a process, each with a real engine on an event loop of its own, over a store in memory that
can be cut off at any instant. It touches no file; it sets trace functions, jumps time, and silences the log while it
buries a process that was lost.

Start with `playing`, one play; then `lives`, how memory is lost, `sites` and `faults`, what strikes where.
"""

"""
One run: arrivals in, decision out. The only code that resumes the user's.

Touches no I/O and never waits: it drives generators with `send` and `throw`, numbers what they ask for, and compares
that with what was recorded. One thread at a time, as with every generator. What it says is to be done, others do:
first recorded, then acted upon.

Start with `execution`, one turn of a run; then `strand`, which resumes user code, `nodes`, what is open, and
`step_states`, the table of what can happen to a step.
"""

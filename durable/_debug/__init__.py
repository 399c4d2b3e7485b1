"""
Replay as a tool: what happened in a run, step by step, with the code at hand.

`cursor` walks a replay forward and, by beginning again, backward; `replay` makes a `Replay` of a whole
history, and `what_if` lets a copy of one go on in memory; `session` is the debugger of the command line,
`walker` and `stepping` move it, `expressions` are what it is asked. Nothing here executes a step, or opens
a journal for writing; only `what_if` needs an event loop.
"""

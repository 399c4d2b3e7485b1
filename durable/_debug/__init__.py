"""
Replay as a tool: what happened in a run, step by step, with the code at hand.

`cursor` walks a replay forward and, by beginning again, backward; `replay` makes a `Replay` of a whole
history; `check` does that for many and reports what would break; `session` is the debugger of the
command line. Nothing here executes a step, opens a journal for writing, or needs an event loop.
"""

"""
Replay as a tool: what happened in a run, step by step, with the code at hand.

Runs workflow code over recorded events, on the thread of the caller. It executes no step and opens no journal for
writing; expressions typed at its prompt are the only code it evaluates. Only `what_if` needs an event loop: a copy
that resumes in memory.

Start with `stepped_replay`, a replay that walks both ways; then `replay`, and `session`, the debugger without its
terminal.
"""

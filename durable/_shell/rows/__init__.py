"""
What crosses between the event loop and the writer's thread: runs to be made, turns to be written, what a commit caused.

Touches nothing: each value is made on one side and then read on the other, which is why no lock is needed between
them.

Start with `rows`, what a turn writes, and what the loop learns when it is committed.
"""

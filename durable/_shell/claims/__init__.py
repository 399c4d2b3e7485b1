"""
What runs claim of what there is little of: keys, slots of limits, places in the line of a queue.

Functions of an open transaction, as `writes` are, which use them: on the writer's thread, without a loop, log or clock.

Start with `slots`, who is inside a limit and who waits; then `keys`, and `places`, whose turn it is.
"""

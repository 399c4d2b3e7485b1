"""
Commands about what a run did, and whether today's code would do the same: they execute nothing, and change nothing.

Start with `replay`.
"""

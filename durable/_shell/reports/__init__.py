"""
What is told of a journal: counts, numbers for monitoring, limits, runs as watchers see them, or as text.

Functions of an open connection that only read, as `reads` are, on which they are built.

Start with `census`, a journal in numbers; then `exporting`, runs that leave.
"""

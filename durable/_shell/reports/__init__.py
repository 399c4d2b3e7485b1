"""
What is told of a journal as a whole: counts, numbers for monitoring, runs as text for another file.

Functions of an open connection that only read, as `reads` are, on which they are built.

Start with `census`, a journal in numbers; then `exporting`, runs that leave.
"""

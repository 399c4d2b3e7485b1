"""
Group commit: the turns of all runs that are ready, one transaction; and what is held of runs between two of them.

On the event loop. It hands functions of a transaction to the database and tells who asked once that is on disk; what
they write is none of its business.

Start with `commits`, the group and what becomes of it when the disk fails; then `witness`, whose turn it was when a
process died.
"""

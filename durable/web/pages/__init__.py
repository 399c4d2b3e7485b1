"""
One module for each page: what it reads of the journal, in one short transaction, and what may be changed there.

A page reads no more than it shows: lists are paged by cursor, counts come from indexes or are bounded. Its functions
take a `Call` and give a response.

Start with `runs`, the list; then `run`, all about one.
"""

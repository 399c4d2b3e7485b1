"""
The journal's file: its connections and their threads, its one owner, its tables. Knows nothing of runs.

The only room that opens the file, begins and commits transactions, and takes locks. Methods that are awaited belong to
the event loop; the functions they are given run on the writer's thread or the reader's. (In memory there is no thread:
functions run at once.)

Start with `database`, and what it promises; then `connections`, one connection, and `schema`, what each column means.
"""

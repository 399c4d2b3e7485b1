"""
An engine: given its options, opened, asked, closed. The only room that knows all the others.

On the event loop, in a task of its own: it holds the database and the tasks of the engine (`tasks`), made at opening
and ended in reverse. A service, a dry run and an engine for threads are made of the same parts.

Start with `engine`, what users call; then `backend`, what handles ask, and `running`, the parts of an open engine.
"""

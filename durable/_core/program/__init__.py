"""
What workflows are made of: definitions, and the ops that they yield. Values that know no journal and no run.

Touches no I/O. The one thing that changes is which driver is in charge of the code that runs in this thread (a
`threading.local` in `current_driver`): by it an op knows whether to be recorded or to be a plain call. Another driver,
one without a journal, would be built on this room alone.

Start with `ops`, what may be yielded; then `definition` and `functions`, what decorators make of a function.
"""

"""
One attempt of one step: the user's function, called on the loop, in a thread, in a process or inside a transaction.

What may go wrong there ends here as an event: an exception of any kind, a timeout, a cancellation, a thread that
outlives both. It knows nothing of turns, and writes nothing but the notes (cursors, memos) that a step keeps.

Start with `steps`, an attempt from its beginning to its outcome; then `context`, what the function may ask, and
`hooks`, the middleware around it.
"""

"""
What callers hold: a run, a batch, a schedule; and what they learn of it.

On the caller's event loop. A handle is an id and a way to ask: it keeps no state of the run, reads from the file, and
sends what changes something to the journal's owner, directly or over a Unix socket.

Start with `journal`, what can be asked of a journal, and `handle`, what a caller gets who starts a run; then
`run_info`, a run as it stands.
"""

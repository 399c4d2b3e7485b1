"""
One active run on the event loop: its turns, and which of its steps are running.

This room waits: for attempts of steps (in tasks, threads, worker processes), for timers, for the writer. It holds no
connection; what is to be recorded goes through `commits`, many runs in one transaction, and a turn's actions begin
when that has returned.

Start with `driver`, the loop of one run; then its parts: `inbox`, what arrived, `turn_writer`, a decision as rows, and
`attempt_runner`, the steps that are running.
"""

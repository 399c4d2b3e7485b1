"""
The part that decides: pure, synchronous, without clock, event loop, log, randomness or database.

Read in this order: `ops` (what a workflow may yield) and `op_constructors` (the functions that make
them), `definition` and `decorators`, `events` (what a journal holds), `strand` (resumes user
code), `nodes`, `attempts` and `groups` (open commands), `execution` (arrivals in, decision
out), `history` (what replay needs), `admission` (who may run). Values are the business of
`codec`, errors that of `failures`; runs as text are that of `export_format` and `export_reader`,
copies of runs that of `copies`, two runs side by side that of `run_lines` and `diff`.
"""

"""
What users call: decorators, the functions that make ops, plain functions for workflow code, schedules.

It makes the values of `program` and keeps none itself; it touches no I/O. Nothing that executes a workflow needs it,
apart from `registry`, which definitions an engine knows.

Start with `decorators`, which make definitions; then `op_constructors`, which make what workflows yield.
"""

"""
What users write: ops, definitions, and their options. Values that know nothing of journals.

Read `ops` and `group_ops` (what may be yielded), `op_constructors` (the functions that make them), `definition` and
`decorators`, `current_driver` and `flow` (what workflow code may ask of whoever drives it).
"""

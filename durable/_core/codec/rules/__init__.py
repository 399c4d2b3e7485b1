"""
How values of each kind of type are written and read: one rule for each, made by `resolver` from the rules of its parts.

What a rule is, and how it refuses, is in `rule`, beside this room.

Start with `scalars`, the plain ones; then `classes`, those with fields.
"""

"""
Limits that hold over all workers: a small workflow each, that knows who is inside, and grants slots in order.

Start with `limit_workflow`.
"""

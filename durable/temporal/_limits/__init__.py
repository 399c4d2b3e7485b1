"""
Limits that hold over all workers: a small workflow each, that knows who is inside, and grants slots in order.

And what the server takes of one run at once.

Start with `limit_workflow`, `room`.
"""

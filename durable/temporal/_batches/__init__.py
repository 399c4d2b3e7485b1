"""
Batches, each a workflow of the server's: its members are children of it, so that the server tells it of every end.

Start with `batch_workflow`.
"""

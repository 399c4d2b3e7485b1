"""
What users hold: the engine that polls task queues and starts runs, and handles on runs.

Start with `engine`, `handle`.
"""

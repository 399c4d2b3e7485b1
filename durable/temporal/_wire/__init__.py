"""
How what is ours looks on a server: values, failures, what runs are started with, how they end. Pure functions.

Start with `payloads`, `starts`.
"""

"""
Commands about files as a whole: what comes, goes, is copied and deleted.

Start with `transfer`.
"""

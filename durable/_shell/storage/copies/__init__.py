"""
Copies of a journal's file: how one is made while the file is in use, what marks it, and how a torn one is recognised.

Start with `backups`; then `marks`, which tell files of one origin apart, and `torn`, what a copy byte by byte may be.
"""

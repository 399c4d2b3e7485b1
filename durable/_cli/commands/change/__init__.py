"""
Commands that start runs or change them: with an event loop, through a `Client`, whichever process has the file open.

Start with `requests`, the simplest of them.
"""

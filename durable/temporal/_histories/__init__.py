"""
Histories of the server as journals of ours, without a server: its SDK replays them, and what is decided is the journal.

Start with `converting`.
"""

"""
Commands that look at a journal: on the main thread, without asyncio, beside the process that has it open.

Start with `show`, one run on a page.
"""

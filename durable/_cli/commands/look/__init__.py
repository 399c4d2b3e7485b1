"""
Commands that look at a journal: on the main thread, without asyncio, beside whoever has it open.

Start with `show`, one run on a page.
"""

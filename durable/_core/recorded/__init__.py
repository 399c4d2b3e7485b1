"""
Recorded runs away from their journal: exported and read back, redacted, copied, compared, checked against today's code.

Touches no file: text and values in, text and values out, on any thread. The caller opens what is read, and decides
where what is written goes.

Start with `export_format`, the lines that a run becomes; then `copies`, runs that resume elsewhere.
"""

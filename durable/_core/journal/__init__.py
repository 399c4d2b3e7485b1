"""
What is recorded of a run, and what such a list of events says when it is read again.

Touches nothing: frozen values, and functions of them. Kinds of events and the fields of their JSON are on disk for
ever, so that what is added here stays for ever. Which rows hold them is the shell's business.

Start with `events`, every fact there is; then `history`, the same by position, as replay needs it.
"""

"""
A run as a drawing: one tree, and the ways to write it.

Touches nothing: events in, lines out. It opens no journal and knows no terminal; `durable graph` does that for it.

Start with `model`, the tree; `text` and `svg` write it.
"""

"""A run as a drawing: the tree, and the ways to write it."""

"""One active run on the event loop: its turns, its steps, and the commits that record them."""

"""
Whose file it is: taken over by one engine at a time, opened, put back from a backup; and what outlives its owner.

It takes locks and holds descriptors, in the thread that asks; what it opens is `storage`'s. Who owns a file is the
kernel's word alone: what is written beside it is for people.

Start with `ownership`, the lock; then `opening`, a file that is taken over and opened.
"""

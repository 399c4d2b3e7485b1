"""
Values and exceptions to JSON text and back, by annotation. It knows nothing of runs, and could be a library of its own.

Touches no I/O and imports no module of the user's: classes are found by their annotations, exceptions by name among
the modules that are loaded. Nothing in it changes but caches of rules, so that any thread may use it.

Start with `codec`, the way in; then `resolver`, which finds the rule of an annotation, and `rule`, what a rule is.
"""

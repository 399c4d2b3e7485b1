"""
Values and exceptions to JSON text and back, by annotation. It knows nothing of runs, and could be a library of its own.

Touches no I/O (but the source lines of tracebacks) and imports no module of the user's: classes are found by their
annotations, exceptions by name among the modules that are loaded. Nothing in it changes but caches of rules, so that
any thread may use it. The rules of each kind of type have a folder of their own, `rules`, and so has what may be
hostile, `exceptions`.

Start with `codec`, the way in for values; then `resolver`, which finds the rule of an annotation, and `rule`, what a
rule is.
"""

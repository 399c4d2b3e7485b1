"""
Runs that arrive from another file, with their ids, their families and what they wait for.

Functions of an open transaction, as `writes` are: on the writer's thread, without a loop, log or clock.

Start with `importing`, all or none of a file's runs; then `import_ties`, how they belong together.
"""

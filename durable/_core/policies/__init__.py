"""
What a definition is given besides its function: how often it is tried, how many may run at once, what its key is.

Values and decisions about numbers and names. They know no definitions, ops or runs, and touch nothing.

Start with `retry`, which failures deserve another attempt, and after how long; then `limits`, and `settled`, when a
group ends before all of its members have; and `caps`, how large an engine lets things grow.
"""

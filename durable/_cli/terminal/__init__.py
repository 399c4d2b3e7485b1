"""
What commands read from a terminal and write to it: JSON arguments, questions, tables, values, problems.

The only room of the command line that knows how wide a terminal is, or whether there is a person at it. Opens no
journal.

Start with `output`, how every command writes; then `values`, payloads as people and programs read them.
"""

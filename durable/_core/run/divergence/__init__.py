"""
Whether replayed code asks for what was recorded, and what to tell people where it does not.

Pure, and of no influence on a run that replays well: user code is looked at here, never resumed.

Start with `report`, the error and its guesses; then `comparing`, how much is looked at.
"""

"""
``python examples/ingest [PROGRAM]``: the daemon, from source or frozen, takes in a folder, and is killed meanwhile.
"""

import sys

from taking_in import run

run(sys.argv[1:])

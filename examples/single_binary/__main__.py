"""The demonstration: `python examples/single_binary [PROGRAM]`."""

import sys

from demo import main, program_of

main(program_of(sys.argv[1:]))

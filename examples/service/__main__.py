"""The trial: `python examples/service [--server gunicorn] [--workers N] [--seconds S]`."""

import sys

from trial import main

sys.exit(main(sys.argv[1:]))

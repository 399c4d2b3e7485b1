"""
Makes `tests.core.drive` importable however pytest was called (`python -m pytest` does so by itself).
"""

import sys
from pathlib import Path

sys.path[:0] = [root] if (root := str(Path(__file__).parents[2])) not in sys.path else []

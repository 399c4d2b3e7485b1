"""
The release that this is: `durable.__version__`. The build reads it here, too, so that no installation need be asked.
"""

from typing import Final

RELEASE: Final = "0.1.0"

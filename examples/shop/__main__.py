"""
``python examples/shop``: a day of the shop, beside a bank.
"""

from day import run

run()

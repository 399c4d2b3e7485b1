"""
``python examples/agent``: an evening of the agent, killed three times.
"""

from evening import run

run()

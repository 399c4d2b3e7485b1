"""Runs outside of their journal: exported, redacted, copied, compared, checked against today's code."""

"""
What the workers of one engine share: which definitions and steps they can run, and the engine's options.

Start with `registry`.
"""

"""
One run: arrivals in, decision out. The only code that resumes the user's.

Read `strand` (resumes code), `nodes` and `nodes` (what is open), `attempts` and `groups`, `execution` (turns),
`decision` (what a turn gives), `divergence` (code that asks for something else).
"""

"""
Values and exceptions to JSON and back, by annotation. Knows nothing of runs.

`codec` is the way in; `resolver` finds the rule of an annotation, `rule` says what a rule is; `scalars`, `containers`,
`classes`, `choices` and `untyped` are the rules; `signatures` are functions, `failures` exceptions.
"""

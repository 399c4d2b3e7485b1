"""
Exceptions, and whatever else may be hostile, as records and text; and exceptions made anew from records.

None of an object's own code is run for it but its `__str__` and `__repr__`, guarded: what else is asked is asked of its
type. Nothing in a record executes or imports anything. No I/O but the source lines of tracebacks.

Start with `failures`, the way in; `safe_text` is the text of any object, `parts` what can be read of an exception
without its help, `instances` how one is made again.
"""

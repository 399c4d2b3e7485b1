"""
The journal from another process: reads the file itself, and asks its owner for what changes something.

On the caller's event loop. Where nobody owns the file, it becomes the owner for a moment, and records the request.

Start with `client`, what users call; then `client_backend`, what handles ask, and `owner_socket`, the way to the owner.
"""

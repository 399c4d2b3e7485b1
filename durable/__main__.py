"""``python -m durable``: the command line."""

from durable._cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())

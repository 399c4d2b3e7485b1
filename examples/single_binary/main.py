"""
The ride application and its `durable` command line, in one program.

    rides serve --db rides.db                                        execute rides, until SIGTERM
    rides book 42 "Main St 1" --db rides.db --payments URL           book one, and print its id
    rides wait ID --db rides.db                                      print its receipt, once it is there
    rides durable COMMAND ...                                        look at the journal, and debug it

`make binary` freezes it into one file, dist/rides, which needs neither Python nor anything else where it runs. Such a
file is two processes: the one that was started unpacks it and waits for the other, which passes on SIGTERM, but cannot
pass on SIGKILL. To kill the program, kill the process that `serve` names; the journal's lock names it, too.
"""

import argparse
import asyncio
import os
import signal
import sys

import rides

from durable import Client, Engine, RunFailedError, command_line


async def serve(db: str) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Engine(db, [rides]):  # what an earlier process left unfinished continues
        print(f"serving {db} as process {os.getpid()}", flush=True)
        await stop.wait()
    return 0


async def book(db: str, user: int, pickup: str, payments: str, key: str | None) -> int:
    async with Client(db) as client:  # asks the process that serves; where none does, records it itself
        run = await client.start(rides.ride(user, pickup, payments), key=key)
    print(run.id)
    return 0


async def wait(db: str, run_id: str) -> int:
    async with Client(db) as client:
        try:
            print(await client.get(run_id).result())
        except RunFailedError as error:  # its cause is what the step raised, in another process
            print(repr(error.__cause__), file=sys.stderr)
            return 1
    return 0


def main(argv: list[str]) -> int:
    if argv[:1] == ["durable"]:
        os.environ.setdefault("DURABLE_APP", "rides")  # its debug, replay and check take the code in this program
        return command_line(argv[1:])
    description, _, usage = (__doc__ or "").strip().partition("\n")
    parser = argparse.ArgumentParser(
        prog="rides", description=description, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("serve", "book", "wait"):
        command = commands.add_parser(name)
        command.add_argument("--db", required=True, metavar="FILE", help="the journal")
        if name == "book":
            command.add_argument("user", type=int)
            command.add_argument("pickup")
            command.add_argument("--payments", required=True, metavar="URL", help="where a ride is paid")
            command.add_argument("--key", help="books one ride, however often it is given")
        elif name == "wait":
            command.add_argument("run_id")
    given = parser.parse_args(argv)
    if given.command == "serve":
        return asyncio.run(serve(given.db))
    if given.command == "book":
        return asyncio.run(book(given.db, given.user, given.pickup, given.payments, given.key))
    return asyncio.run(wait(given.db, given.run_id))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

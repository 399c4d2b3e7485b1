"""
Whose turn it is, noted where the death of the process does not reach it: in an engine that follows one that died.

What such a note says is decided in `_core/suspicion`. Where the last engine gave its file up, nothing is noted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypeAlias

from durable._core.codec.json_text import dumps, loads
from durable._core.light_frozen import light_frozen
from durable._core.suspicion import BODY, HOOKS, Accused, TurnMark

#: Writes a text down, on one of the lines that survive the process.
Note: TypeAlias = Callable[[int, bytes], None]

#: The line of the event loop's thread, and that of the writer's.
LOOP: Final = 0
WRITER: Final = 1

_UNNOTED: Final[AbstractContextManager[None]] = contextlib.nullcontext()


class Watch:
    """One run, as it is watched: each context lasts while its code runs."""

    def __init__(self, run: int, progress: int, note: Note | None) -> None:
        self._run, self._progress, self._note = run, progress, note
        #: On the event loop: its own code, replayed or not.
        self.turn = self._noted(LOOP, BODY)
        #: On the writer's thread: the hooks of the run, whose own code is not to run again.
        self.hooks = self._noted(WRITER, HOOKS)
        #: On the writer's thread, between two transactions: its own code.
        self.turn_in_commit = self._noted(WRITER, BODY)

    def transaction(self, position: str) -> AbstractContextManager[None]:
        """While the writer is busy with the transaction at *position*."""
        return self._noted(WRITER, position)

    def _noted(self, line: int, position: str) -> AbstractContextManager[None]:
        if self._note is None:
            return _UNNOTED
        return _Noted(self._note, line, dumps(TurnMark(self._run, position, self._progress)).encode())


#: A run that is not watched.
UNWATCHED: Final = Watch(0, 0, None)


class Witness:
    """What one engine notes of turns, and knows of the turns in which the process died."""

    def __init__(self, note: Note | None, guilty: Iterable[Accused]) -> None:
        """*note* None: the last engine did not die."""
        self._note = note
        self._guilty = {(each.mark.run, each.mark.position): each.deaths for each in guilty}

    def watch(self, run: int, progress: int) -> Watch:
        """Watch a run, which has got as far as *progress*."""
        return Watch(run, progress, self._note)

    def deaths(self, run: int, position: str) -> int:
        """How often the process died of the code of *run* at *position*, if that is not to run again; else 0."""
        return self._guilty.get((run, position), 0)

    def acquit(self, run: int) -> None:
        """The deaths had their consequence: a person, or other code, decides about what is to come."""
        for each in [each for each in self._guilty if each[0] == run]:
            del self._guilty[each]

    @property
    def is_idle(self) -> bool:
        """Whether the last engine did not die, so that there is nothing to note or to know."""
        return self._note is None


def read_notes(lines: Sequence[bytes] | None) -> list[TurnMark] | None:
    """The marks that an engine left, on the lines of its side file, when it died; None if it did not."""
    return None if lines is None else [mark for line in lines for mark in _read(line)]


def _read(line: bytes) -> Iterable[TurnMark]:
    try:
        found: Any = loads(line.decode())
        run, position, progress = found
        yield TurnMark(int(run), str(position), int(progress))
    except (ValueError, TypeError):  # empty: no turn was in progress
        return


@light_frozen
class _Noted:
    _note: Note
    _line: int
    _text: bytes

    def __enter__(self) -> None:
        self._note(self._line, self._text)

    def __exit__(self, *_: object) -> None:
        self._note(self._line, b"")

"""
Python source in colours: what each piece of a line is, for a style sheet to paint. Text in, markup out.
"""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup, escape

from durable._cli.terminal.output import printable

#: Columns of a line that are shown.
MOST_COLUMNS: Final = 300
#: Parts of f-strings have tokens of their own from Python 3.12 on.
_STRINGS: Final = ("STRING", "FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END")
_CONSTANTS: Final = ("None", "True", "False")


class _Piece(NamedTuple):
    """A stretch of one line, and the class that it is painted by."""

    start: int
    end: int
    kind: str


def coloured(lines: Sequence[str]) -> list[Markup]:
    """
    Each of *lines* as markup, its keywords, strings, numbers and comments in a span of their own.

    Lines that are cut out of a file need not be whole: from where they make no sense on, they are plain.
    """
    pieces: dict[int, list[_Piece]] = {}
    try:
        for row, piece in _pieces("\n".join(lines) + "\n"):
            pieces.setdefault(row, []).append(piece)
    except (tokenize.TokenError, SyntaxError):
        pass  # what was read until then is painted
    return [_painted(line, pieces.get(row, ())) for row, line in enumerate(lines, 1)]


def _pieces(text: str) -> Iterator[tuple[int, _Piece]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = _kind(token)
        if kind is None:
            continue
        (first, start), (last, end) = token.start, token.end
        for row in range(first, last + 1):
            yield row, _Piece(start if row == first else 0, end if row == last else MOST_COLUMNS, kind)


def _kind(token: tokenize.TokenInfo) -> str | None:
    name = tokenize.tok_name[token.type]
    if name in _STRINGS:
        return "text"
    if name == "COMMENT":
        return "note"
    if name == "NUMBER" or token.string in _CONSTANTS:
        return "number"
    return "word" if name == "NAME" and keyword.iskeyword(token.string) else None


def _painted(line: str, pieces: Sequence[_Piece]) -> Markup:
    shown, at = Markup(), 0
    for piece in pieces:
        start, end = max(at, piece.start), min(piece.end, MOST_COLUMNS)
        if start < end:
            shown += escape(printable(line[at:start]))
            shown += Markup('<span class="py-{}">{}</span>').format(piece.kind, printable(line[start:end]))
            at = end
    return shown + escape(printable(line[at:MOST_COLUMNS])) + ("…" if len(line) > MOST_COLUMNS else "")

"""
What the command line writes: nothing that stands in a journal can drive a terminal.
"""

import io

import pytest

from durable._cli.terminal.output import Output, ago, cut, iso, printable, width_of
from durable._core.durations import span


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def out(monkeypatch):
    """
    An output on a terminal of 40 columns that shows colours.
    """
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    made = Output(Terminal())
    made.text = made._stream.getvalue
    return made


def test_colours_on_a_terminal(out):
    """
    What we colour is coloured; status by its meaning.
    """
    out.line(f"{out.bold('a')} {out.status('failed')} {out.status('unheard of')}")
    assert out.text() == "\x1b[1ma\x1b[0m \x1b[31mfailed\x1b[0m unheard of\n"


def test_escape_sequences_of_a_journal_stay_text(out):
    """
    Also where colours are on, also inside coloured text, also by the marks that stand for colours.
    """
    out.line(out.bold("key \x1b[2J\x07") + "\x1b]0;title\x07")
    out.line("\ufdd031m\x9b")
    shown = out.text()
    assert "\x1b[2J" not in shown.replace("\\x1b[2J", "")
    assert shown.count("\x1b") == 2
    assert "\x07" not in shown
    assert "\\x1b]0;title" in shown
    out.table(["A", "STATUS"], [["\x1b[31mred", "failed"], ["two\nlines", "x"]])
    assert "\\x1b[31mred  \x1b[31mfailed\x1b[0m" in out.text()
    assert "two\\nlines" in out.text()


@pytest.mark.parametrize("variable, value", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_they_are_not_wanted(monkeypatch, variable, value):
    """
    NO_COLOR, and terminals that show none.
    """
    monkeypatch.setenv(variable, value)
    made = Output(Terminal())
    made.line(made.bold("a"))
    assert made._stream.getvalue() == "a\n"


def test_tables_fit_the_terminal(out):
    """
    The flexible column is cut first, then other wide ones; wide characters count twice.
    """
    out.table(["NAME", "WHY"], [["n" * 10, "w" * 80], ["日本", "short"]], flexible=1)
    lines = [line for line in out.text().splitlines() if "\x1b" not in line]
    assert all(width_of(line) <= 40 for line in lines)
    assert lines[0].endswith("…")
    assert lines[1].startswith("日本        short")


def test_into_a_pipe_nothing_is_cut(monkeypatch):
    """
    Programs get all of it.
    """
    monkeypatch.delenv("COLUMNS", raising=False)
    stream = io.StringIO()
    Output(stream).table(["A"], [["x" * 500]])
    assert "x" * 500 in stream.getvalue()


def test_long_lines_are_broken_between_words_on_a_terminal_only(monkeypatch):
    """
    So that what stands in the middle of a sentence is not cut out of it.
    """
    monkeypatch.setenv("COLUMNS", "40")
    lines = Output(io.StringIO()).wrapped("a line of several words, which does not fit", indent=10)
    assert lines == ["a line of several words, which", "does not fit"]
    monkeypatch.delenv("COLUMNS")
    assert Output(io.StringIO()).wrapped("a b " * 50, indent=9) == ["a b " * 50]


def test_a_last_column_without_room_stands_below_its_row(monkeypatch):
    """
    Only what does not fit moves; with room enough it is cut in its place.
    """
    rows = [("a" * 30, "short"), ("b", "a reason that is longer than what is left")]
    for columns, expected in (
        (50, [f"{'HEAD':<30}  WHY", f"{'a' * 30}  short", "b", "  a reason that is longer than what is left"]),
        (60, [f"{'HEAD':<30}  WHY", f"{'a' * 30}  short", f"{'b':<30}  a reason that is longer tha…"]),
    ):
        monkeypatch.setenv("COLUMNS", str(columns))
        stream = io.StringIO()
        Output(stream).table(("HEAD", "WHY"), rows, readable=25)
        assert stream.getvalue().splitlines() == expected


def test_words_for_values():
    """
    Spans in at most two units, instants and widths as people read them.
    """
    assert [span(each) for each in (0, 0.0015, 0.5, 0.9999, 12.34, 59.96, 103, 600, 7_190, 86_399, 200_000)] == [
        "0 ms", "1.5 ms", "500 ms", "1 s", "12.3 s", "1 min", "1 min 43 s", "10 min", "2 h", "1 d", "2 d 8 h",
    ]  # fmt: skip
    assert [ago(1_000.0 - each, 1_000.0) for each in (-5, 0.2, 5.4, 103)] == ["0 s", "0 s", "5 s", "1 min 43 s"]
    assert iso(0.9996) == "1970-01-01T00:00:01.000Z"
    assert iso(None) is None
    assert (cut("日本語", 4), width_of("日本語"), width_of("é")) == ("日…", 6, 1)
    assert printable("plain") == "plain"

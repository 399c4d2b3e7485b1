"""
Source in colours: the text stays what it is, whatever it is.
"""

import re

import pytest
from markupsafe import Markup

from durable.web.colouring import MOST_COLUMNS, coloured

CODE = '''
@workflow
async def order(user: str) -> Flow[str]:
    """Two
    lines."""
    total = 0x10  # <b>not</b> markup
    yield charge(f"{user!r} <i>", None)
'''


def test_pieces_are_painted_and_the_text_stays():
    """
    Keywords, strings over several lines, numbers, constants and comments; each line's text is what it was.
    """
    lines = CODE.splitlines()
    painted = coloured(lines)
    assert [Markup(re.sub(r"</?span[^>]*>", "", each)).unescape() for each in painted] == lines
    assert painted[2].startswith('<span class="py-word">async</span> <span class="py-word">def</span> order(')
    assert painted[3] == '    <span class="py-text">&#34;&#34;&#34;Two</span>'
    assert painted[4] == '<span class="py-text">    lines.&#34;&#34;&#34;</span>'
    assert '<span class="py-number">0x10</span>' in painted[5]
    assert '<span class="py-note"># &lt;b&gt;not&lt;/b&gt; markup</span>' in painted[5]
    assert '<span class="py-number">None</span>' in painted[6]


@pytest.mark.parametrize("lines", [["    x = '''"], ["x = ("], ["  if x:", " y"], ["$ % ?"], [], ["\u202e\x00"]])
def test_source_that_is_cut_out_is_shown_all_the_same(lines):
    """
    A window of a file need not be whole: what makes no sense is plain, and nothing in it turns a line around.
    """
    painted = coloured(lines)
    assert len(painted) == len(lines)
    assert not any(each in line for line in painted for each in "\u202e\x00")


def test_long_lines_are_cut():
    """
    A line has so many columns, whatever is painted in it.
    """
    for line in ("x" * 999, f"y = '{'x' * 999}'"):
        text = Markup(re.sub(r"</?span[^>]*>", "", coloured([line])[0])).unescape()
        assert text == line[:MOST_COLUMNS] + "…"

"""
The guide's pictures of the dashboard: there, and small. `python tests/browser/pictures.py` takes them anew.
"""

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "examples" / "guide"


def test_each_picture_is_shown_and_small():
    """
    PNGs under 120 kB, each with words for who does not see it; none lies about unused.
    """
    shown = re.findall(r"!\[(.+?)\]\((pictures/\S+)\)", (GUIDE / "dashboard.md").read_text(encoding="utf-8"))
    assert {name for _, name in shown} == {f"pictures/{path.name}" for path in (GUIDE / "pictures").iterdir()}
    for words, name in shown:
        assert len(words) > 15
        picture = (GUIDE / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < 120_000, name

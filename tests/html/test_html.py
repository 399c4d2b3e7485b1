"""
`make docs`: the pages and the reference are built without a warning, and read without a network.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from durable import _names
from tests.documents import GUIDE, ROOT

SECONDS = 300


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """
    The pages, as `make docs` makes them.
    """
    folder = tmp_path_factory.mktemp("docs")
    command = ["-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "-c", ".ci/docs", ".", folder]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, timeout=SECONDS)
    return folder


@pytest.mark.timeout(SECONDS)
def test_every_chapter_and_every_public_name_is_there(built):
    """
    Names with an address of their own, which other pages may link to.
    """
    reference = (built / ".ci" / "docs" / "reference.html").read_text(encoding="utf-8")
    assert not [name for name in _names.HOMES if f'id="durable.{name}"' not in reference]
    made = {path.stem for path in (built / "examples" / "guide").glob("*.html")}
    assert made == {path.stem for path in GUIDE.glob("*.md")}


@pytest.mark.timeout(SECONDS)
def test_nothing_is_fetched_by_whoever_reads_them(built):
    """
    No script, style, font or picture is somebody else's.
    """
    loaded = r'<(?:script|img|iframe)[^>]+src="https?:|<link[^>]+href="https?:|url\(["\']?https?:|@import'
    for path in [*built.rglob("*.html"), *built.rglob("*.css")]:
        assert not re.search(loaded, path.read_text(encoding="utf-8")), Path(path).relative_to(built)

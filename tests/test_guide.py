"""
The guide can be relied on: its blocks run, its links lead somewhere, and it leaves no public name out.
"""

import gc
import re

import pytest

from durable import _face
from tests.documents import GUIDE, links, run_blocks
from tests.error_page import PAGE, cause_and_way_out, page, public_errors

LINES = 150
INDEX = GUIDE / "README.md"
PAGES = sorted(GUIDE.glob("*.md"))
#: In the order of the index.
CHAPTERS = list(dict.fromkeys(name for name, _ in links(INDEX) if re.fullmatch(r"[\w-]+\.md", name)))


@pytest.fixture
def own_collector():
    """
    The garbage collector, which a chapter may tell to collect in another way: after the test it does as before.
    """
    before = [*gc.callbacks]
    yield
    gc.callbacks[:] = before
    gc.unfreeze()


@pytest.mark.usefixtures("own_collector")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_chapter_run(page, tmp_path, monkeypatch):
    """
    In order and in one namespace, as a reader would paste them.
    """
    monkeypatch.chdir(tmp_path)
    run_blocks(page, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_chapter_is_short(page):
    """
    A reader gets through it in ten minutes.
    """
    assert len(page.read_text(encoding="utf-8").splitlines()) <= LINES


def test_the_index_lists_each_chapter():
    """
    Nothing in the folder is out of a reader's sight.
    """
    assert set(CHAPTERS) == {page.name for page in PAGES if page != INDEX}


def test_each_chapter_names_the_next():
    """
    The guide can be read from end to end by its last lines.
    """
    for name, following in zip(CHAPTERS, [*CHAPTERS[1:], "README.md"], strict=True):
        last = (GUIDE / name).read_text(encoding="utf-8").rstrip().rpartition("\n")[2]
        assert re.fullmatch(rf"Next: \[.+\]\({re.escape(following)}\)", last), f"{name} ends with {last!r}"


def test_the_guide_shows_every_public_name():
    """
    In code, of a block or a line: prose that happens to use the word is not enough.
    """
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES if path != PAGE)
    code = re.findall(r"```\w+\n(.*?)```|`([^`\n]+)`", text, re.DOTALL)
    words = {word for block, line in code for word in re.findall(r"\w+", block or line)}
    errors = {error.__name__ for error in public_errors()}  # they have a page of their own
    assert not [name for name in _face.HOMES if name not in words | errors]


@pytest.mark.parametrize("error", public_errors(), ids=lambda error: error.__name__)
def test_an_error_says_its_cause_and_the_way_out(error):
    """
    In its docstring, for the page *Errors* and for `help()`.
    """
    assert all(cause_and_way_out(error))


def test_the_page_of_errors_is_the_one_that_their_docstrings_make():
    """
    `python -m tests.error_page` writes it.
    """
    assert PAGE.read_text(encoding="utf-8") == page()

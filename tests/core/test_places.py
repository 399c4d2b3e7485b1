"""
Places in code: what frames of a frozen program say, and where no source is looked for.
"""

import pytest

from durable._core import source_places
from durable._core.codec.codec import Codec
from durable._core.codec.exceptions.failures import record_exception
from durable._debug.replay import SourceLine


def raised(code, file):
    """
    What *code* raises, compiled as frames of *file*.
    """
    with pytest.raises(Exception) as caught:
        exec(compile(code, file, "exec"), {"places": source_places})
    return caught.value


@pytest.fixture
def decoy(tmp_path, monkeypatch):
    """
    A rides.py in the current folder, which is not the one that was frozen.
    """
    path = tmp_path / "rides.py"
    path.write_text("something_else()\n")
    monkeypatch.chdir(tmp_path)
    return path


def test_what_a_relative_file_says_is_not_recorded(decoy):
    """
    The traceback of a frozen program has file, line and function, and no text of a file of that name nearby.
    """
    failure = record_exception(raised("1 / 0", "rides.py"), Codec())
    assert 'File "rides.py", line 1, in <module>\n' in failure.traceback
    assert "something_else" not in failure.traceback


def test_what_a_full_path_says_is_recorded(decoy):
    """
    Where there is source, its line is in the traceback.
    """
    failure = record_exception(raised("1 / 0", str(decoy)), Codec())
    assert "    something_else()\n" in failure.traceback


def test_source_is_shown_of_full_paths_only(decoy):
    """
    A replayed line has its text, or none: never that of another file.
    """
    assert SourceLine(str(decoy), 1, "ride").text == "something_else()"
    assert SourceLine("rides.py", 1, "ride").text == ""


def test_our_own_frames_are_left_out_of_tracebacks():
    """
    The folder of our code is named as its frames name it, whatever `__file__` is.
    """
    assert record_exception.__code__.co_filename.startswith(source_places.OURS)
    failure = record_exception(raised("places.has_source(None)", "rides.py"), Codec())
    assert "in <module>" in failure.traceback
    assert "has_source" not in failure.traceback.partition("TypeError")[0]


@pytest.mark.parametrize("file, there", [("/srv/rides.py", True), ("<stdin>", True), ("rides.py", False)])
def test_where_source_is_looked_for(file, there):
    """
    Full paths, and what a shell keeps.
    """
    assert source_places.has_source(file) is there

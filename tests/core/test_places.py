"""
Places in code: what frames of a frozen program say, and where no source is looked for.
"""

import pytest

from durable._core import source_places
from durable._core.authoring.decorators import step
from durable._core.codec.codec import Codec
from durable._core.codec.exceptions.failures import record_exception
from durable._core.program import current_driver
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


@step
def one(n: int = 0) -> int:
    return n


class Listener:
    """
    In charge, to no purpose.
    """

    def created(self, command):
        pass


@pytest.fixture
def in_charge():
    before = current_driver.put_in_charge(Listener())
    yield
    current_driver.put_in_charge(before)


def asked_in(file, lines):
    """
    Where the steps were asked for that a function asks for, one on each of its *lines*; compiled as of *file*.
    """
    names = {"one": one, "found": []}
    exec(compile("def body():\n" + "    found.append(one())\n" * lines, file, "exec"), names)
    names["body"]()
    names["body"]()
    return [op.site for op in names["found"]]


def test_each_op_knows_the_line_that_asked_for_it(in_charge):
    """
    In a long function too, however often it runs, and on a line that continues another one.
    """
    assert asked_in("long.py", 300) == [("long.py", line) for line in range(2, 302)] * 2
    first, second = one(), one(
        1
    )  # fmt: skip
    assert second.site == first.site
    assert first.site is not None
    assert first.site[0] == __file__


def test_a_place_is_of_its_own_code_also_where_that_took_the_memory_of_another(in_charge):
    """
    Functions come and go, each compiled where the one before it was: none is taken for another.
    """
    for number in range(100):
        assert asked_in(f"{number}.py", 2) == [(f"{number}.py", 2), (f"{number}.py", 3)] * 2


def test_places_do_not_pile_up(in_charge, monkeypatch):
    """
    A program that makes ever new functions keeps a bounded number of places.
    """
    monkeypatch.setattr(current_driver, "_MOST_PLACES", 8)
    for number in range(20):
        asked_in(f"{number}.py", 3)
        assert len(current_driver._places) <= 8


def test_what_is_no_workflow_has_no_place():
    """
    Nobody asks for it, so it is not looked for.
    """
    assert one().site is None

"""
Whatever an exception is and holds: it is recorded, within bounds, and none of its code runs unasked.
"""

import contextlib
import json
import pickle
import sys
import time
import traceback

import pytest

from durable._core.codec.codec import Codec
from durable._core.codec.exceptions.failures import Failure, describe, rebuild, record_exception
from durable._core.codec.exceptions.safe_text import LINE_CAP, one_line
from tests.core.hostile_exceptions import KINDS, OUTSIDERS

EVERY = {**KINDS, **OUTSIDERS}
#: Kinds whose texts never come, so that only a thread can ask for them.
ENDLESS = {
    "LoopsOnTouch", "ReprSleeps", "StrLoops", "StrSleeps", "StrWaits", "endless_argument", "endless_attributes",
}  # fmt: skip


def refuses(_, __):
    """No text is to be had."""
    raise TimeoutError


QUIET = Codec(asking=lambda: refuses)
DIRECT = Codec()


def through_json(error, codec):
    """The failure as it comes back from the file."""
    text = json.dumps(record_exception(error, codec).to_json())
    assert len(text.encode()) <= 4 * codec.max_bytes
    return Failure.from_json(json.loads(text))


def used(error):
    """Do with *error* whatever a caller might, as far as its class lets him: that code is the user's."""
    for use in (str, repr, traceback.format_exception, pickle.dumps, lambda error: error == error):  # noqa: PLR0124
        with contextlib.suppress(BaseException):
            use(error)


@pytest.mark.parametrize("kind", EVERY)
def test_every_kind_is_recorded_without_its_code(kind):
    """
    One record within the cap, quickly, though its class refuses whatever it is asked; and an exception to raise.
    """
    error = EVERY[kind]()
    began = time.process_time()
    failure = through_json(error, QUIET)
    back = rebuild(failure)
    assert time.process_time() - began < 3.0  # on however slow a processor, watched by whatever
    assert len(describe(failure)) < 1_000
    assert "args" in failure.data  # else not even its arguments could be read
    assert issubclass(type(back), Exception)


@pytest.mark.parametrize("kind", sorted(EVERY.keys() - ENDLESS))
def test_every_kind_is_recorded_when_asked(kind):
    """
    What its class says, if that can be said; whatever it raises is swallowed.
    """
    failure = through_json(EVERY[kind](), DIRECT)
    assert describe(failure)


@pytest.mark.parametrize("kind", sorted(EVERY.keys() - ENDLESS))
def test_every_kind_can_be_used_once_it_is_rebuilt(kind):
    """
    Printed, formatted, pickled, compared: nothing is imported, and no file is read.
    """
    back = rebuild(through_json(EVERY[kind](), QUIET))
    used(AttributeError("x", name="x"))  # what printing needs itself
    loaded = set(sys.modules)
    used(back)
    assert set(sys.modules) == loaded


@pytest.mark.parametrize("kind", EVERY)
def test_every_kind_is_told_in_a_line(kind):
    """
    For logs: of bounded length, without a line of the user's code.
    """
    line = one_line(EVERY[kind]())
    assert line
    assert "\n" not in line
    assert len(line) <= LINE_CAP + 100
    line.encode()


def test_what_is_recorded_twice_is_the_same():
    """
    An error that passes from a step through its workflow to the caller loses nothing on the way.
    """
    for kind, make in KINDS.items():
        once = record_exception(make(), QUIET, with_traceback=False)
        twice = record_exception(rebuild(once), QUIET, with_traceback=False)
        again = record_exception(rebuild(twice), QUIET, with_traceback=False)
        assert twice == again, kind


def test_what_a_class_says_of_itself_is_not_asked():
    """
    Its fields are read as Python keeps them, whatever properties of the same names give.
    """
    touched = []

    def tells(_):
        touched.append(1)

    class Telling(Exception):
        args = __cause__ = __context__ = __traceback__ = __dict__ = __notes__ = __class__ = property(tells)

    try:
        raise Telling("x", 2) from KeyError("y")
    except Telling as caught:
        failure = record_exception(caught, QUIET)
    assert failure.cause is not None
    assert (failure.message, failure.data["args"], failure.cause.type_name) == ("('x', 2)", ["x", 2], "KeyError")
    assert "in test_what_a_class_says" in failure.traceback
    assert not touched

"""
Classes as journals name them: the same whatever the program was started as, and under older names, too.
"""

import sys
import types

import pytest
from attrs import frozen

from durable._core.codec.class_names import aliases, loaded_module, main_module, module_of
from durable._core.codec.codec import Codec
from durable._core.codec.exceptions.failures import rebuild, record_exception
from durable._core.codec.rule import qualified
from durable._core.policies.retry import Retry, from_record, recorded
from durable.errors import DecodeError, StepError

CODEC = Codec()


@pytest.fixture
def as_main(monkeypatch):
    """
    A program that was started as the file shop.py: its classes live in `__main__`.
    """
    main = types.ModuleType("__main__")
    main.__file__ = "/srv/shop.py"
    main.__spec__ = None
    monkeypatch.setitem(sys.modules, "__main__", main)
    main.Declined = type("Declined", (Exception,), {"__module__": "__main__"})
    return main


def test_a_class_of_the_started_file_is_recorded_under_the_files_name(as_main):
    """
    Not as `__main__`: whoever looks at the journal next was started otherwise.
    """
    failure = record_exception(as_main.Declined("no"), CODEC)
    assert (failure.module, failure.type_name) == ("shop", "Declined")
    assert type(rebuild(failure)) is as_main.Declined
    assert qualified(as_main.Declined) == "shop.Declined"
    policy = from_record(recorded(Retry(attempts=2, on=as_main.Declined)))
    assert policy.wants(as_main.Declined())


def test_what_the_started_file_recorded_is_read_where_it_is_a_module(as_main, monkeypatch):
    """
    The command line imports shop.py as `shop`, and finds the class there.
    """
    failure = record_exception(as_main.Declined("no"), CODEC)
    shop = types.ModuleType("shop")
    shop.Declined = type("Declined", (Exception,), {"__module__": "shop"})
    monkeypatch.setitem(sys.modules, "shop", shop)
    assert type(rebuild(failure)) is shop.Declined


@pytest.mark.parametrize(
    "file, spec, name",
    [
        ("/srv/shop.py", None, "shop"),
        ("/srv/my-shop.py", None, "__main__"),  # nobody could import it
        (None, None, "__main__"),  # a shell
        ("/srv/shop/__main__.py", types.SimpleNamespace(name="shop.__main__"), "shop.__main__"),
    ],
)
def test_the_main_module_by_name(as_main, file, spec, name):
    """
    A file by its stem, a module by its dotted name, and what has neither stays `__main__`.
    """
    as_main.__file__, as_main.__spec__ = file, spec
    assert main_module() == name
    assert module_of(as_main.Declined) == name
    assert loaded_module(name) is as_main


def test_an_unknown_exception_is_a_step_error_still():
    """
    A name that nothing has, or ever had, is rebuilt as before.
    """
    failure = record_exception(type("Strange", (Exception,), {"__module__": "gone"})("x"), CODEC)
    assert type(rebuild(failure)) is StepError


def test_retry_of_a_run_knows_exceptions_by_their_old_names():
    """
    A policy that was recorded with an exception of the old name holds for the renamed class.
    """
    old = type("Busy", (Exception,), {"__module__": "shop"})
    policy = from_record(recorded(Retry(attempts=2, on=old)))
    new = aliases("shop:Busy")(type("Overloaded", (Exception,), {"__module__": "shop.errors"}))
    assert policy.wants(new())
    assert not policy.wants(ValueError())


@frozen
class Card:
    number: str


@frozen
class Cash:
    amount: int


@aliases("Card")
@frozen
class CreditCard:
    number: str


@aliases("somewhere.else:Cash")
@frozen
class Coins:
    amount: int


def test_a_renamed_member_of_a_union_reads_what_was_recorded_under_the_old_name():
    """
    Members of a union that look alike in JSON are told apart by name; an alias leads to the new class.
    """
    payload = CODEC.encode(Card("1234"), Card | Cash)
    assert CODEC.decode(payload, CreditCard | Cash) == CreditCard("1234")
    with pytest.raises(DecodeError, match="tag 'Cash'"):
        CODEC.decode(CODEC.encode(Cash(5), Card | Cash), CreditCard | Card)
    assert CODEC.decode(CODEC.encode(Cash(5), Card | Cash), CreditCard | Coins) == Coins(5)

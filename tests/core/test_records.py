"""
Records of our own: attrs classes read from data that anybody may have written.
"""

from typing import Annotated

import pytest
from attrs import field, frozen

from durable._core.codec.codec import Payload
from durable._core.codec.records import Instant, Seconds, narrowed, record_codec
from durable._core.codec.rules.classes import KEY
from durable._core.codec.rules.scalars import PLAIN
from durable.errors import DecodeError


@frozen
class Ticket:
    number: int
    price: Annotated[float, narrowed(PLAIN[float], "a price", lambda price: price >= 0)] = 0.0
    note: Payload | None = None
    at: Instant = 0.0
    lasts: Seconds | None = None


OPEN, CLOSED = record_codec(), record_codec(closed=True)


@pytest.mark.parametrize("codec", [OPEN, CLOSED])
@pytest.mark.parametrize(
    "ticket", [Ticket(1), Ticket(-(2**63), 2.5, "text", 1.5, 3.0), Ticket(2**63 - 1, note=b"\x00\xff")]
)
def test_what_was_written_comes_back_equal(codec, ticket):
    """
    Text and bytes side by side, and numbers up to the bounds of SQLite.
    """
    assert codec.from_plain(codec.to_plain(ticket, Ticket), Ticket) == ticket


@pytest.mark.parametrize(
    "field, found, said",
    [
        ("number", 2**63, "Ticket.number: expected int of 64 bits, found int 9223372036854775808"),
        ("number", True, "Ticket.number: expected int, found bool True"),
        ("price", -1, "Ticket.price: expected a price, found int -1"),
        ("price", None, "Ticket.price: expected float, found null"),
        ("note", 7, "Ticket.note: expected str | bytes | None, found int 7"),
        ("note", {"$bytes": "?"}, "Ticket.note: expected base64, "),
        ("note", {"$bytes": 7}, 'Ticket.note: expected {"$bytes": base64}, found dict'),
        ("note", {"$bytes": "", "more": 1}, 'Ticket.note: expected {"$bytes": base64}, found dict'),
        ("at", 1e12, "Ticket.at: expected epoch seconds of a year before 9999, found float 1000000000000.0"),
        ("lasts", -1e300, "Ticket.lasts: expected fewer seconds than 8,000 years have, found float -1e+300"),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_expected(field, found, said):
    """
    Record, field, found, expected.
    """
    with pytest.raises(DecodeError) as refused:
        OPEN.from_plain({"number": 1, field: found}, Ticket)
    assert refused.value.about("Ticket").startswith(said)


@frozen
class Renamed:
    """What older records call a sort."""

    kind: str = field(metadata={KEY: "sort"})
    size: int = field(default=1, metadata={KEY: "count"})


def test_a_field_may_have_another_name_in_records():
    """
    Of those that were written when it was called so; an error says the name that stands in the record.
    """
    assert CLOSED.to_plain(Renamed("job"), Renamed) == {"sort": "job"}
    assert CLOSED.to_plain(Renamed("job", 2), Renamed) == {"sort": "job", "count": 2}
    assert CLOSED.from_plain({"sort": "job", "count": 2}, Renamed) == Renamed("job", 2)
    with pytest.raises(DecodeError) as refused:
        CLOSED.from_plain({"sort": 7}, Renamed)
    assert refused.value.about("Renamed") == "Renamed.sort: expected str, found int 7"


def test_unknown_fields_are_passed_over_or_refused():
    """
    As the format wants it: between releases, or where each field must have its meaning.
    """
    plain = {"number": 1, "at": 2.0, "mood": "good"}
    assert OPEN.from_plain(plain, Ticket) == Ticket(1, at=2.0)
    with pytest.raises(DecodeError) as refused:
        CLOSED.from_plain(plain, Ticket)
    assert refused.value.about("Ticket").startswith("Ticket.mood: expected no field of this name, found one")

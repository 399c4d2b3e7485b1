"""The codec: what is accepted comes back equal; everything else is refused with a typed error."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import threading
import typing
import uuid
import zlib
import zoneinfo
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NoReturn, NotRequired, TypedDict, TypeVar

import attrs
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable._core.codec.codec import Codec, digest
from durable._core.codec.signatures import argument_types, result_type
from durable.errors import CapExceededError, DecodeError, EncodeError, RecordError

T = TypeVar("T")
UTC = dt.UTC


def label(each: Any) -> str:
    """A short name for a table's row, the same in every process."""
    try:
        return ascii(each).partition(" at 0x")[0][:40]
    except ValueError:  # more digits than Python prints
        return "huge"


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Odd(enum.Enum):
    ONE = object()
    TWO = 1j


class Name(str):
    __slots__ = ()


@attrs.frozen
class Item:
    sku: str
    price: decimal.Decimal


@attrs.define
class Order:
    id: int
    items: list[Item] = attrs.field(factory=list)
    _note: str | None = None
    kind: Literal["normal", "rush"] = attrs.field(default="normal", alias="order_kind", kw_only=True)


@attrs.define
class RushOrder(Order):
    hours: int = 1


@attrs.frozen
class Tree:
    value: int
    children: list[Tree] = attrs.field(factory=list)


BOTH_BUILD = threading.Barrier(2, timeout=5)
BUILDING: set[int] = set()


def met(type_: Any) -> Any:
    """*type_*, once another thread has come as far: annotations are evaluated while a rule is being built."""
    if threading.get_ident() not in BUILDING:
        BUILDING.add(threading.get_ident())
        BOTH_BUILD.wait()
    return type_


@attrs.frozen
class Met:
    value: met(int)
    children: list[Met] = attrs.field(factory=list)


@attrs.frozen
class Box(Generic[T]):
    content: T
    more: list[T] = attrs.field(factory=list)


@attrs.frozen
class IntBox(Box[int]):
    label: str = ""


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


@dataclasses.dataclass
class Derived:
    side: int
    area: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.area = self.side**2


@dataclasses.dataclass
class WithInitVar:
    x: int
    y: dataclasses.InitVar[int]


def upper(text: str) -> str:
    return text.upper()


def split(text: str) -> list[str]:
    return text.split(",")


@attrs.define
class Split:
    parts: list[str] = attrs.field(converter=split)


@attrs.define
class Upper:
    name: str = attrs.field(converter=upper)


@attrs.define
class Positive:
    n: int = attrs.field(validator=attrs.validators.gt(0))


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Model(pydantic.BaseModel):
    name: str
    when: dt.datetime | None = None
    size: int = pydantic.Field(default=1, alias="theSize")


class Lossy(pydantic.BaseModel):
    secret: str = pydantic.Field(exclude=True)


UserId = NewType("UserId", int)


class Return(Generic[T]):
    pass


class Command:
    pass


Flow = AsyncGenerator[Command | Return[T], Any]

LOCAL = dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)
NAIVE = dt.datetime(2024, 2, 29, 1, 2, 3, 4)  # noqa: DTZ001 - values without a time zone are recorded too

ROUND_TRIPS: list[tuple[Any, Any]] = [
    (None, None),
    (None, type(None)),
    (True, bool),
    (7, int),
    (-(2**80), int),
    (10**3999, int),
    (1.5, float),
    (3, float),
    (-0.0, float),
    (1e300, float),
    ("", str),
    ("žluťoučký \u2028 \x00 🐎", str),
    ([1, 2], list[int]),
    ([[1], []], list[list[int]]),
    ([1, "a", None, [1.5]], list),
    ((1, "a"), tuple[int, str]),
    ((), tuple[()]),
    ((1, 2, 3), tuple[int, ...]),
    ((1, "x"), tuple),
    ({1, 2}, set[int]),
    (frozenset({"a"}), frozenset[str]),
    ({"a": 1, "$": 2}, dict[str, int]),
    ({1: "a", -2: "b"}, dict[int, str]),
    ({uuid.UUID(int=1): 1}, dict[uuid.UUID, int]),
    ({Color.RED: 1}, dict[Color, int]),
    ({Level.LOW: 1}, dict[Level, int]),
    ({(1, "a"): 1}, dict[tuple[int, str], int]),
    ({1: 1, "1": 2}, dict[int | str, int]),
    ({1: 1, "1": 2}, dict),
    (None, int | None),
    (5, int | None),
    (5, int | str | None),
    (5, int | float),
    (5.0, int | float),
    (5, float | None),
    (True, bool | int),
    ([1], list[int] | list[str]),
    (["a"], list[int] | list[str]),
    ((1,), list[int] | tuple[int, ...]),
    ({"$": 1}, dict[str, int] | Point),
    ({"$": "int", "v": 3}, dict[str, int | str] | None),
    (Point(1.0), dict[str, int] | Point),
    (Point(1.0), Point | Item | None),
    (Box("a"), Box[int] | Box[str]),
    (dt.date(2024, 1, 1), dt.date | dt.datetime | str),
    ("2024-01-01", dt.date | dt.datetime | str),
    ("a", Literal["a", 1, True]),
    (1, Literal["a", 1, True]),
    (True, Literal["a", 1, True]),
    (Color.RED, Literal[Color.RED]),
    (Color.BLUE, Color),
    (Level.HIGH, Level),
    (Access.READ | Access.WRITE, Access),
    (Odd.TWO, Odd),
    (NAIVE, dt.datetime),
    (dt.datetime(2024, 2, 29, tzinfo=UTC), dt.datetime),
    (dt.datetime(2024, 2, 29, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30))), dt.datetime),
    (LOCAL, dt.datetime),
    (LOCAL.replace(fold=1), dt.datetime),
    (dt.date(2024, 2, 29), dt.date),
    (dt.time(1, 2, 3, tzinfo=UTC), dt.time),
    (dt.timedelta(days=-1, microseconds=1), dt.timedelta),
    (dt.timedelta.max, dt.timedelta),
    (uuid.UUID(int=2**127), uuid.UUID),
    (decimal.Decimal("1.10"), decimal.Decimal),
    (decimal.Decimal("-Infinity"), decimal.Decimal),
    (b"\x00\xff", bytes),
    (pathlib.Path("/a/b c"), pathlib.Path),
    (pathlib.PurePath("a"), pathlib.PurePath),
    (Item("a", decimal.Decimal("1.5")), Item),
    (Order(1, [Item("a", decimal.Decimal(2))], "n", order_kind="rush"), Order),
    (RushOrder(1, hours=2), RushOrder),
    (RushOrder(1), Order | RushOrder),
    (Tree(1, [Tree(2, [Tree(3)])]), Tree),
    (Box(1, [2]), Box[int]),
    (Box({"a"}), Box),
    (Box(Box("a")), Box[Box[str]]),
    (IntBox(1, [2], "l"), IntBox),
    (Point(1.0, 2.0), Point),
    (Derived(3), Derived),
    (Upper("a"), Upper),
    (Pair(1), Pair),
    ({"title": "t"}, Movie),
    ({"title": "t", "year": 1}, Movie),
    (Model(name="a", when=dt.datetime(2024, 1, 1, tzinfo=UTC)), Model),
    ([Model(name="a")], list[Model]),
    (UserId(3), UserId),
    (3, Annotated[int, "meta"]),
    (3, Annotated[int, {"unhashable": []}]),
    ([1], Sequence[int]),
    ((1,), Sequence[int]),
    ({"a": (1,)}, Mapping[str, Sequence[int]]),
    ([dt.date(2024, 1, 1), {1: 2}], list[Any]),
    (Box(1), Box[T]),  # type: ignore[valid-type]  # as found in a generic function
    # without an annotation
    ((1, (2,)), Any),
    ({1, 2}, Any),
    (frozenset({(1, "a")}), Any),
    ({"$": "set", "v": [1]}, Any),
    ({1: {2: 3}}, object),
    ([NAIVE, dt.date(2024, 1, 1), dt.time(1), dt.timedelta(1)], Any),
    ([uuid.UUID(int=1), decimal.Decimal("0.1"), b"x", pathlib.Path("x")], Any),
    ({"a": {"b": [1, 2.5, None, True, "x"]}}, Any),
]


@pytest.mark.parametrize("value, type_", ROUND_TRIPS, ids=label)
def test_what_is_accepted_comes_back_equal_and_of_the_same_type(value: Any, type_: Any) -> None:
    """A supported value survives the journal, through JSON that any tool can read."""
    codec = Codec()
    text = codec.encode(value, type_)
    json.loads(text)
    back = codec.decode(text, type_)
    assert back == value
    if float not in (type_, *typing.get_args(type_)):  # an int may stand for a float
        assert isinstance(back, type(value)) if isinstance(value, set | frozenset) else type(back) is type(value)
    assert codec.encode(back, type_) == text


REFUSED: list[tuple[Any, Any, str]] = [
    ("1", int, "$"),
    (1, str, "$"),
    (1, bool, "$"),
    (True, int, "$"),
    (True, float, "$"),
    (1.0, int, "$"),
    (2**53 + 1, float, "$"),
    (10**400, float, "$"),
    (math.nan, float, "$"),
    (math.inf, Any, "$"),
    ([1.0, math.nan], Any, "$[1]"),
    ("\ud800", str, "$"),
    ({"a": "\udfff"}, Any, "$.a"),
    ({"\ud800": 1}, Any, "$['\\ud800']"),
    (10**4000, int, "$"),
    ({"a": [10**5000]}, Any, "$.a[0]"),
    (Name("x"), str, "$"),
    (Name("x"), Any, "$"),
    (Level.LOW, Any, "$"),
    (Level.LOW, int, "$"),
    (Color.RED, Any, "$"),
    (collections.OrderedDict(a=1), Any, "$"),
    (collections.OrderedDict(a=1), dict[str, int], "$"),
    (object(), Any, "$"),
    (Point(1.0), Any, "$"),
    ([Point(1.0)], list, "$[0]"),
    (RushOrder(1), Order, "$"),
    ({"items": [{"price": Point(0.0)}]}, Any, "$.items[0].price"),
    (Order(1, [Item("a", 3)]), Order, "$.items[0].price"),  # type: ignore[arg-type]  # what is tested
    (Box("a"), Box[int], "$.content"),
    (IntBox(1, ["a"]), IntBox, "$.more[0]"),  # type: ignore[list-item]  # what is tested
    ((1,), tuple[int, str], "$"),
    ([1], tuple[int, ...], "$"),
    ({"year": 1}, Movie, "$"),
    ({"title": "t", "x": 1}, Movie, "$"),
    ("c", Literal["a"], "$"),
    (1, Literal[True], "$"),
    (1j, Literal[1j], "$"),
    (Split("a,b"), Split, "$"),
    (Lossy(secret="s"), Lossy, "$"),
    (WithInitVar(1, 2), WithInitVar, "$"),
    (decimal.Decimal("NaN"), decimal.Decimal, "$"),
    (dt.time(1, tzinfo=BERLIN), dt.time, "$"),
    (NAIVE, dt.date, "$"),
    (pathlib.Path("\udcff"), pathlib.Path, "$"),
    (print, Callable[..., Any], "$"),
    (1, int.__class__, "$"),
    (1, str | None, "$"),
    ({1: "a"}, dict[str, str], "$[1]"),
    ({"a": 1}, dict[int, int], "$.a"),
]


@pytest.mark.parametrize("value, type_, path", REFUSED, ids=label)
def test_what_could_not_come_back_is_refused_with_its_path(value: Any, type_: Any, path: str) -> None:
    """A value that JSON or its annotation would change is refused, naming step, place and type."""
    with pytest.raises(EncodeError) as caught:
        Codec().encode(value, type_, where="result of step 'x'")
    assert caught.value.path == path
    assert caught.value.where == "result of step 'x'"
    assert caught.value.found
    assert caught.value.reason


MISFITS: list[tuple[str, Any, str]] = [
    ('"1"', int, "$"),
    ("1", bool, "$"),
    ("true", int, "$"),
    ("1.0", int, "$"),
    ("NaN", float, "$"),
    ("[Infinity]", Any, "$"),
    ("1e400", float, "$"),
    ("[1e400]", Any, "$[0]"),
    ("1" * 5000, Any, "$"),
    ("", Any, "$"),
    ("{", Any, "$"),
    ("1 2", Any, "$"),
    ("[" * 100_000, Any, "$"),
    ("[" * 100_000 + "]" * 100_000, Any, "$"),
    ('{"a":' * 100_000, Any, "$"),
    ('{"id":1,"items":[{"sku":"a"}]}', Order, "$.items[0].price"),
    ('{"id":1,"items":[{"sku":"a","price":"x"}]}', Order, "$.items[0].price"),
    ('{"items":[]}', Order, "$.id"),
    ("[]", Order, "$"),
    ('{"n":0}', Positive, "$"),
    ("[1]", tuple[int, str], "$"),
    ('{"year":1}', Movie, "$.title"),
    ('{"right":"a"}', Pair, "$.left"),
    ('{"name":1}', Model, "$"),
    ('"green"', Color, "$"),
    ("4", Access, "$"),
    ("2", Literal[1], "$"),
    ('{"$":"nope","v":1}', Any, "$"),
    ('{"$":["set"],"v":1}', Any, "$"),
    ('{"$":"set"}', Any, "$"),
    ('{"$":"set","v":[[]]}', Any, "$"),
    ('{"$":"dict","v":[[[],1]]}', Any, "$"),
    ('{"$":"dict","v":[1]}', Any, "$[0]"),
    ('{"$":"uuid","v":3}', Any, "$"),
    ('{"$":"datetime","v":"2024-01-01T00:00:00+01:00[../../etc/passwd]"}', Any, "$"),
    ('{"$":"datetime","v":"2024-01-01T00:00:00+01:00[Nowhere/At_All]"}', Any, "$"),
    ('"2024-01-01"', dt.datetime, "$"),
    ('"not base64!"', bytes, "$"),
    ('{"01":1}', dict[int, int], "$['01']"),
    ("[[[],1]]", dict[Any, int], "$"),
    ('"a"', int | None, "$"),
    ('{"$":"Item","v":{}}', Item | Point, "$.sku"),
    ('{"$":"Other","v":{}}', Item | Point, "$"),
    ("1", Callable[..., Any], "$"),
    ("99999999999999999999", dt.timedelta, "$"),
]


@pytest.mark.parametrize("text, type_, path", MISFITS, ids=label)
def test_a_record_that_does_not_fit_is_a_decode_error_with_its_path(text: str, type_: Any, path: str) -> None:
    """No record, however hostile, raises anything but DecodeError."""
    with pytest.raises(DecodeError) as caught:
        Codec().decode(text, type_, where="signal 'go'")
    assert caught.value.path == path
    assert "signal 'go'" in str(caught.value)


def test_unknown_fields_are_ignored_and_missing_ones_take_their_default() -> None:
    """Records outlive the classes they were written with."""
    codec = Codec()
    assert codec.decode('{"id":1,"gone":[]}', Order) == Order(1)
    assert codec.decode('{"x":1,"z":2}', Point) == Point(1.0)
    assert codec.decode('{"left":1,"z":2}', Pair) == Pair(1)
    assert codec.decode('{"title":"t","z":2}', Movie) == {"title": "t"}
    assert codec.decode('{"_note":"n","kind":"rush","id":1}', Order) == Order(1, [], "n", order_kind="rush")


def test_a_constructor_of_the_users_own_is_called_by_name() -> None:
    """Its parameters may stand in another order than the fields."""

    @attrs.define(init=False)
    class Turned:
        first: int
        second: int

        def __init__(self, second: int, first: int) -> None:
            self.first, self.second = first, second

    value = Turned(first=1, second=2)
    assert Codec().decode(Codec().encode(value, Turned), Turned) == value


def test_an_absent_field_is_named_with_the_type_that_it_should_have() -> None:
    """Whoever reads the error need not look the class up."""
    with pytest.raises(DecodeError) as caught:
        Codec().decode('{"sku":"a"}', Item, where="result of step 'find'")
    assert str(caught.value) == (
        "cannot read result of step 'find' at $.price: expected Decimal: found none, and it has no default"
    )


def test_negative_zero_and_fold_and_zone_survive() -> None:
    """What equality does not see comes back too."""
    codec = Codec()
    assert math.copysign(1, codec.decode(codec.encode(-0.0))) == -1
    for moment in (LOCAL, LOCAL.replace(fold=1)):
        back = codec.decode(codec.encode(moment, dt.datetime), dt.datetime)
        assert (back.tzinfo, back.fold) == (BERLIN, moment.fold)
    assert codec.decode(codec.encode(NAIVE)).tzinfo is None


def test_two_threads_may_build_the_rule_of_one_type_at_once() -> None:
    """Transactions run on a thread of their own; neither sees the other's unfinished rules."""
    codec = Codec()
    tree = Met(1, [Met(2, [Met(3)])])
    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(lambda value: codec.encode(value, Met), [tree, tree]))
    assert texts == ['{"value":1,"children":[{"value":2,"children":[{"value":3,"children":[]}]}]}'] * 2
    assert codec.decode(texts[0], Met) == tree
    assert not BOTH_BUILD.broken


def test_cycles_and_deep_values_exceed_the_cap_on_nesting() -> None:
    """A value that contains itself ends in a typed error, not in a RecursionError."""
    codec = Codec(max_depth=8)
    loop: list[Any] = []
    loop.append(loop)
    table: dict[str, Any] = {}
    table["a"] = {"b": table}
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    tree = Tree(0)
    tree.children.append(tree)
    for value, type_ in [(loop, Any), (table, Any), (deep, Any), (loop, list[Any]), (tree, Tree), ((deep,), Any)]:
        with pytest.raises(CapExceededError) as caught:
            codec.encode(value, type_)
        assert caught.value.what == "nesting"
    while deep:  # taken apart by hand, since its deallocation may nest as deep
        deep = deep.pop()
    fits: Any = 1
    for _ in range(8):
        fits = [fits]
    assert codec.decode(codec.encode(fits)) == fits
    with pytest.raises(CapExceededError):
        codec.encode([fits])


def test_the_cap_on_size_counts_bytes() -> None:
    """A value over the cap is refused before anything is written."""
    codec = Codec(max_bytes=100_000)
    assert codec.encode("x" * 99_998)
    for value in ("x" * 99_999, "é" * 50_000, ["x" * 99_996 + "x"]):
        with pytest.raises(CapExceededError) as caught:
            codec.encode(value)
        assert caught.value.found > caught.value.allowed == 100_000


class Zip:
    def encode(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def decode(self, data: bytes) -> bytes:
        return zlib.decompress(data)


class Broken:
    def encode(self, data: bytes) -> bytes:
        raise OSError("no key")

    def decode(self, data: bytes) -> bytes:
        raise OSError("no key")


class NotBytes:
    def encode(self, data: bytes) -> bytes:
        return typing.cast("bytes", data.decode())

    def decode(self, data: bytes) -> bytes:
        return data


@pytest.mark.parametrize("value", [None, True, 1, "a", 1.5, [1], {"a": 1}])
def test_hooks_see_every_value_as_bytes(value: Any) -> None:
    """No value slips past encryption, not even the ones with a fast path."""
    codec = Codec(Zip())
    payload = codec.encode(value)
    assert isinstance(payload, bytes)
    assert codec.decode(payload) == value
    assert codec.decode(Codec().encode(value)) == value, "text from before the hooks is still read"
    assert codec.digest(payload) == digest(Codec().encode(value))
    assert codec.digest(payload) == codec.digest_of(codec.canonical(value))


def test_failing_hooks_are_typed_errors() -> None:
    """What the user's hook raises does not reach the engine as if it were its own."""
    for hooks in (Broken(), NotBytes()):
        with pytest.raises(EncodeError):
            Codec(hooks).encode({"a": 1})
    with pytest.raises(DecodeError):
        Codec(Broken()).decode(b"x")
    with pytest.raises(DecodeError):
        Codec().decode(b"x")
    with pytest.raises(DecodeError):
        Codec(NotBytes()).decode(b"\xff")


# --- arguments ---


def plain(a: int, b: str = "b", *rest: float, c: Item | None = None, **more: dt.date) -> None: ...


def two(a: int, b: Point) -> None: ...


def named(a: int = 1, b: int = 2, *, c: int) -> None: ...


def test_arguments_come_back_by_the_annotations_of_their_parameters() -> None:
    """Every kind of parameter converts by its own annotation."""
    codec, kinds = Codec(), argument_types(plain)
    args, kwargs = kinds.bind((1, "x", 2.5), {"c": Item("s", decimal.Decimal(1)), "d": dt.date(2024, 1, 1)})
    text = codec.encode_arguments(args, kwargs, kinds)
    assert json.loads(text) == [[1, "x", 2.5], {"c": {"sku": "s", "price": "1"}, "d": "2024-01-01"}]
    assert codec.decode_arguments(text, kinds) == (args, kwargs)
    assert codec.decode_arguments(codec.encode_arguments((), {}, kinds), argument_types(lambda: None)) == ((), {})


def test_bind_gives_one_form_to_equal_calls() -> None:
    """Arguments are positional where they can be, and defaults are left to the code of the day."""
    kinds = argument_types(two)
    point = Point(1.0)
    assert kinds.bind((1, point), {}) == kinds.bind((1,), {"b": point}) == kinds.bind((), {"b": point, "a": 1})
    assert argument_types(plain).bind((1,), {}) == ((1,), {})
    assert argument_types(named).bind((), {"c": 1, "b": 3}) == ((), {"b": 3, "c": 1})
    assert argument_types(named, skip=1).bind((), {"c": 1}) == ((), {"c": 1})


@pytest.mark.parametrize("args, kwargs", [((), {}), ((1,), {}), ((1, 2, 3), {}), ((1, 2), {"x": 1})])
def test_arguments_that_do_not_fit_name_the_signature(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A wrong call says what the function takes."""
    with pytest.raises(TypeError, match=r"two\(a: 'int', b: 'Point'\)|two\(a: int, b: Point\)"):
        argument_types(two).bind(args, kwargs)


@pytest.mark.parametrize("text", ["[]", "1", "[[],{},1]", "[[],{}]", "[[1,2,3],{}]", '[[1],{"z":1}]', '[["x"],{}]'])
def test_recorded_arguments_that_fit_no_longer_are_decode_errors(text: str) -> None:
    """A changed signature blocks the run with a typed error."""
    with pytest.raises(DecodeError):
        Codec().decode_arguments(text, argument_types(two))


def test_a_bad_argument_is_named_by_its_place() -> None:
    """The path leads to the argument."""
    with pytest.raises(EncodeError) as caught:
        Codec().encode_arguments((1, Point("x")), {}, argument_types(two))  # type: ignore[arg-type]  # what is tested
    assert caught.value.path == "$[0][1].x"


async def flow(a: int) -> Flow[Order]:
    yield Return()


async def bare_flow(a: int) -> AsyncGenerator[int, None]:
    yield 1


async def coroutine() -> list[Item]: ...  # type: ignore[empty-body]


def unresolvable(a: Missing, b: int) -> Missing: ...  # type: ignore[name-defined]  # noqa: F821


def unannotated(a, b=1): ...  # type: ignore[no-untyped-def]


def never() -> NoReturn:
    raise NotImplementedError


@pytest.mark.parametrize(
    "fn, expected",
    [
        (flow, Order),
        (bare_flow, Any),
        (coroutine, list[Item]),
        (unresolvable, Any),
        (unannotated, Any),
        (two, type(None)),
        (never, NoReturn),
    ],
)
def test_the_result_type_is_the_annotation_or_the_return_of_a_flow(fn: Any, expected: Any) -> None:
    """A workflow's result is converted by R in Flow[R], a step's by its annotation."""
    assert result_type(fn) == expected


def test_one_annotation_that_cannot_be_resolved_does_not_spoil_the_others() -> None:
    """Names imported for type checkers only become Any; the rest keeps its type."""
    assert argument_types(unresolvable).slots == (Any, int)


def test_local_classes_are_found_when_named() -> None:
    """A class beside a nested function resolves through the names passed in, or the body's mention."""

    @attrs.frozen
    class Inner:
        n: int

    def by_body() -> Inner:
        return Inner(1)

    def by_name(a: Inner) -> None: ...

    assert result_type(by_body) is Inner
    assert argument_types(by_name, names={"Inner": Inner}).slots == (Inner,)


def test_digest_ignores_the_order_of_keys_and_nothing_else() -> None:
    """Equal arguments have equal digests in every process."""
    assert digest('{"a":1,"b":{"c":1,"d":2}}') == digest('{"b":{"d":2,"c":1},"a":1}')
    assert digest("[1,2]") != digest("[2,1]")
    assert digest("[[],{}]") != digest("[[null],{}]")
    assert digest('{"not json') == digest('{"not json')
    assert digest('{"a":' * 100_000)
    assert digest(b"\xff") == digest(b"\xff")
    assert len(digest("1")) == 16
    codec = Codec()
    assert codec.encode({"b", "a", "c"}, set[str]) == '["a","b","c"]', "the order of a set is not left to hashing"


# --- Hypothesis ---

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary(max_size=8)
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(BERLIN))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals()
    | st.sampled_from(
        [Color.RED, Level.LOW, object(), Point(1.0), Name("n"), 1j, "\ud800", 10**4100, pathlib.Path("a")]
    )
)
keys = st.integers() | st.text(max_size=3) | st.sampled_from(["$", "v", (1, "a"), b"k", None, True])
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.sets(st.integers() | st.text(max_size=3), max_size=3)
    ),
    max_leaves=8,
)
ANNOTATIONS = [Any, *{repr(type_): type_ for _, type_ in ROUND_TRIPS if type_ is not Any}.values()]
codec = Codec()


def same(left: Any, right: Any) -> bool:
    """Equal, and of equal types all the way down; a set that was recorded is a set."""
    if not (isinstance(left, type(right)) if isinstance(right, set | frozenset) else type(left) is type(right)):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(item, right[key]) for key, item in left.items())
    return bool(left == right)


@given(values)
def test_any_value_comes_back_itself_or_is_refused(value: Any) -> None:
    """Without an annotation: the same types at every level, or a typed error."""
    try:
        text = codec.encode(value)
    except RecordError:
        return
    assert same(codec.decode(text), value)
    assert codec.digest_of(codec.canonical(value)) == codec.digest(text)


@given(values, st.sampled_from(ANNOTATIONS))
def test_any_value_under_any_annotation_comes_back_equal_or_is_refused(value: Any, type_: Any) -> None:
    """With an annotation it may not fit: equal, or a typed error."""
    try:
        text = codec.encode(value, type_)
    except RecordError:
        return
    assert codec.decode(text, type_) == value


json_like: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$", "v", "id", "items", "sku", "a"]) | st.text(max_size=2), inner, max_size=3
        )
        | st.tuples(st.sampled_from(["set", "dict", "tuple", "datetime", "Path", "UUID", "Point"]), inner).map(
            lambda pair: {"$": pair[0], "v": pair[1]}
        )
    ),
    max_leaves=8,
)


@given(json_like.map(json.dumps) | st.text() | st.binary(), st.sampled_from(ANNOTATIONS))
def test_reading_hostile_records_raises_decode_errors_only(payload: str | bytes, type_: Any) -> None:
    """Random text, random bytes and near misses: a value or a DecodeError, never anything else."""
    with contextlib.suppress(DecodeError):
        codec.decode(payload, type_)

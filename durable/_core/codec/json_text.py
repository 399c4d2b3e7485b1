"""
Plain data to JSON text and back, at the speed of the C code below `json`.

Promises: the text holds no NaN and no infinity, in either direction; a dict keeps its order,
or is sorted where texts are compared.
"""

from __future__ import annotations

import json
import json.encoder
import json.scanner
from collections.abc import Callable
from types import UnionType
from typing import Any, Final, NoReturn

#: A str as JSON.
quote: Final = json.encoder.encode_basestring


def _make_dumps(*, sort_keys: bool) -> Callable[[Any], str]:
    """
    ``json.dumps`` without the set-up: building the C encoder once halves the time of a small value.

    That constructor is not documented, hence the way out when it is absent or has changed.
    """
    plain = json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False, sort_keys=sort_keys
    )
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    try:
        chunks = make(None, plain.default, quote, None, ":", ",", sort_keys, False, False)  # noqa: FBT003 - C
        if "".join(chunks({"a": [1, "é"]}, 0)) != '{"a":[1,"é"]}':
            return plain.encode
    except Exception:  # noqa: BLE001 - whatever an unknown interpreter says, the public way works
        return plain.encode
    join = "".join
    return lambda value: join(chunks(value, 0))


dumps: Final = _make_dumps(sort_keys=False)
dumps_sorted: Final = _make_dumps(sort_keys=True)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# make_scanner only reads its attributes; typeshed says that it wants another scanner.
_decoder: Final[Any] = json.JSONDecoder(parse_constant=_refuse_constant)
#: A value at a place of a text, and where it ends; StopIteration where there is none.
scan: Final[Callable[[str, int], tuple[Any, int]]] = json.scanner.make_scanner(_decoder)


def loads(text: str) -> Any:
    """``json.loads``, without its search for white space where there is none."""
    try:
        value, end = scan(text, 0)
    except StopIteration:
        return _decoder.decode(text)
    return value if end == len(text) else _decoder.decode(text)


def read_object(text: object) -> dict[str, Any] | None:
    """The JSON object in *text*, which is empty where there is none; None if that is damaged."""
    if text is None:
        return {}
    found = _read(text)
    return found if isinstance(found, dict) else None


def read_list(text: object, *types: type | UnionType) -> list[Any] | None:
    """The JSON list in *text*, whose items are of *types*, one each if any are given; None if it is damaged."""
    found = _read(text)
    if not isinstance(found, list):
        return None
    if types and not (len(found) == len(types) and all(map(isinstance, found, types))):
        return None
    return found


def _read(text: object) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None

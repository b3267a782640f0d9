"""A REST request's JSON: parsed as strictly as an answer needs it, and values printed for messages.

orjson reads ordinary documents. Python's own parser takes those that orjson refuses and TensorFlow Serving accepts:
with NaN and Infinity, which its own answers hold too, and with a top-level key twice, of which the first counts.
Whatever else is no JSON is refused, text that follows the document included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import orjson

from serving.engines.embedded_tfserving.status import invalid

MOST_SHOWN = 200
LONGEST_INTEGER = 19  # digits and sign of what surely fits 64 bits; longer ones are read as orjson reads them


def parse(body: bytes, keys: Iterable[bytes]) -> Any:
    """The document's value; `keys` are the known keys of its top level, in quotes. Raises `ServingError`."""
    if all(body.count(key) <= 1 for key in keys):
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
    return _parse_leniently(body)


def _parse_leniently(body: bytes) -> Any:
    if not body.strip():
        raise invalid("The request has no body: it must be a JSON object")
    try:
        document = json.loads(
            body.decode(), object_pairs_hook=_first_of_equal_keys, parse_int=_integer, parse_float=_finite
        )
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise invalid(f"The request's body is not valid JSON: its text is not valid Unicode ({error.reason})") from None
    except ValueError as error:
        raise invalid(f"The request's body is not valid JSON: {error}") from None
    except RecursionError:
        raise invalid("The request's body is nested too deeply") from None
    return document


def _first_of_equal_keys(pairs: list[tuple[str, Any]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for name, value in pairs:
        members.setdefault(name, value)
    return members


def _integer(text: str) -> int | float:
    return int(text) if len(text) < LONGEST_INTEGER or -(2**63) <= int(text[:40]) < 2**64 else _finite(text)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {shortened(text)} does not fit 64 bits")
    return number


def shown(value: Any) -> str:
    """A value as JSON, for a message: its beginning where it is long."""
    try:
        return shortened(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        return "(nested too deeply)"


def shortened(text: str) -> str:
    """The beginning of a text that is long."""
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "..."


def type_name(value: Any) -> str:
    """The type of a value, as TensorFlow Serving's messages call it."""
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")

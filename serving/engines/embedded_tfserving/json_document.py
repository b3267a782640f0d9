"""A REST request's JSON: parsed as TensorFlow Serving parses it, and values printed for messages.

orjson reads ordinary documents. The standard library's scanner, which is C as well, takes those that orjson refuses
and TensorFlow Serving accepts (NaN and Infinity, which its own answers hold too, bytes that are not UTF-8, whatever
follows the document) or reads otherwise (of a key that is there twice the first counts). What both refuse is refused in
TensorFlow Serving's words.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson

from serving.engines.embedded_tfserving import json_fault
from serving.engines.embedded_tfserving.status import ServingError, invalid

# Bytes of a body that are not UTF-8 go through as they came: this is how text is decoded, and encoded again.
NOT_UTF8 = "surrogateescape"
MOST_SHOWN = 200
LONGEST_INTEGER = 19  # digits and sign of what surely fits 64 bits; longer ones are read as orjson reads them

BLANKS = re.compile(r"[ \t\r\n]*")
# RapidJSON's words for numbers that are none, where Python knows others; `CONSTANT` finds strings first, to skip them.
UNKNOWN_CONSTANT = re.compile("-NaN|Inf(?!inity)")
CONSTANT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?(?:NaN|Inf(?:inity)?)', re.DOTALL)
# Only a number with so many digits in a row, or such an exponent, may be beyond 64 bits.
UNUSUAL_NUMBER = re.compile(r"[0-9]{19}|[eE]\+?[0-9]{3}")
ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class NotJson(Exception):
    """A body that is refused; the text says why where RapidJSON would take it."""


def parse(body: bytes) -> Any:
    """The document's value; raises `ServingError`."""
    try:
        return read(body)
    except NotJson as error:
        if not body:
            raise invalid("JSON Parse error: The document is empty") from None
        fault = json_fault.find(body)
        if fault:
            raise invalid(f"JSON Parse error: {fault.words.value} at offset: {fault.offset}") from None
        raise invalid(f"The request's body is not valid JSON: {error}") from None


def read(body: bytes) -> Any:
    """The document's value; raises `NotJson`, what is wrong remaining to be found, and `ServingError`."""
    try:
        document = orjson.loads(body)
        # orjson keeps the last of equal keys. With as many members as colons, no key was there twice.
        if body.count(b":") == _members(document):
            return document
    except orjson.JSONDecodeError:
        pass
    except RecursionError:
        raise _too_deep() from None
    return _parse_leniently(body)


def _members(value: Any) -> int:
    """How many members a value's objects have; fewer where a list holds objects behind something else."""
    if type(value) is dict:
        return len(value) + sum(map(_members, value.values()))
    inner = value
    while type(inner) is list and inner:
        inner = inner[0]
    return sum(map(_members, value)) if type(inner) is dict else 0


def _parse_leniently(body: bytes) -> Any:
    try:
        text = body.decode("utf-8-sig", NOT_UTF8)
        if UNKNOWN_CONSTANT.search(text):
            text = CONSTANT.sub(_as_python_writes_it, text)
        start = BLANKS.match(text).end()  # type: ignore[union-attr] # it matches anything
        decoder = CAREFUL if UNUSUAL_NUMBER.search(text) else PLAIN
        document, _ = decoder.raw_decode(text, start)
        if ESCAPED_SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except UnicodeEncodeError as error:
        raise NotJson(f"its text is not valid Unicode ({error.reason})") from None
    except ValueError as error:
        raise NotJson(str(error)) from None
    except RecursionError:
        raise _too_deep() from None
    return document


def _too_deep() -> ServingError:
    return invalid("The request's body is nested too deeply")


def _as_python_writes_it(found: re.Match[str]) -> str:
    text = found[0]
    if text[0] == '"':
        return text
    if text.endswith("NaN"):
        return "NaN"
    return "-Infinity" if text[0] == "-" else "Infinity"


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


PLAIN = json.JSONDecoder(object_pairs_hook=_first_of_equal_keys)
CAREFUL = json.JSONDecoder(object_pairs_hook=_first_of_equal_keys, parse_int=_integer, parse_float=_finite)


def shown(value: Any) -> str:
    """A value as JSON for a message, printed as RapidJSON prints it: its beginning where it is long."""
    parts: list[str] = []
    size = 0
    for part in _printed(value, 1):
        parts.append(part)
        size += len(part)
        if size > MOST_SHOWN:
            break
    return shortened("".join(parts))


def _printed(value: Any, level: int) -> Iterator[str]:
    """The pieces of a value's text; `level`: the objects and lists around its members. Nothing is read ahead."""
    if type(value) is dict:
        before = "{\n"
        for name, member in value.items():
            yield f"{before}{' ' * 4 * level}{_scalar(name)}: "
            yield from _printed(member, level + 1)
            before = ",\n"
        yield f"\n{' ' * 4 * (level - 1)}}}" if value else "{}"
    elif type(value) is list:
        before = "["
        for item in value:
            yield before
            yield from _printed(item, level + 1)
            before = ", "
        yield "]" if value else "[]"
    else:
        yield _scalar(value)


def _scalar(value: Any) -> str:
    short = value[: MOST_SHOWN + 1] if type(value) is str else value
    return json.dumps(short, ensure_ascii=False)


def shortened(text: str) -> str:
    """The beginning of a text that is long."""
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "..."


def type_name(value: Any) -> str:
    """The type of a value, as TensorFlow Serving's messages call it."""
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")

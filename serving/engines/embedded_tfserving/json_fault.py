"""Where RapidJSON would refuse a document, and in which words.

For a document that our own parser has refused already. The real server parses with RapidJSON 1.1.0 and its flags
`kParseNanAndInfFlag` and `kParseStopWhenDoneFlag`; this goes through the text in the order of its reader.h, recursive
descent. What is sound is skipped by regular expressions, many values at a time: only what is near the fault is looked
at one by one, so that a document of 12 MB takes seconds.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple


class Words(enum.Enum):
    """RapidJSON's (include/rapidjson/error/en.h)."""

    EMPTY = "The document is empty."
    VALUE = "Invalid value."
    NAME = "Missing a name for object member."
    COLON = "Missing a colon after a name of object member."
    MEMBER = "Missing a comma or '}' after an object member."
    ELEMENT = "Missing a comma or ']' after an array element."
    HEX = "Incorrect hex digit after \\u escape in string."
    SURROGATE = "The surrogate pair in string is invalid."
    ESCAPE = "Invalid escape character in string."
    QUOTE = "Missing a closing quotation mark in string."
    TOO_BIG = "Number too big to be stored in double."
    FRACTION = "Miss fraction part in number."
    EXPONENT = "Miss exponent in number."


class Fault(NamedTuple):
    """What is wrong, and the byte at which RapidJSON says so."""

    words: Words
    offset: int


class _Refused(Exception):
    def __init__(self, words: Words, offset: int) -> None:
        super().__init__(words.value)
        self.fault = Fault(words, offset)


_BOM = b"\xef\xbb\xbf"
_BLANKS = r"[ \t\r\n]*+"
_PLAIN = r'[^"\\\x00-\x1f]*+'
_HEX = "[0-9a-fA-F]"
# No first half of a surrogate pair, or both halves.
_UNICODE = rf"(?![dD][89abAB]){_HEX}{{4}}|[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}"
_STRING = rf'"{_PLAIN}(?:\\(?:["\\/bfnrt]|u(?:{_UNICODE})){_PLAIN})*+"'
# A number that surely fits; it may go on behind what is matched.
_EXPONENT = r"[eE](?:-[0-9]++|\+?(?:[0-2][0-9]{2}|30[0-8]|[0-9]{1,2}))"
_NUMBER = rf"-?(?:(?:0|[1-9][0-9]{{0,299}}+)(?:\.[0-9]++)?(?:{_EXPONENT})?|NaN|Inf(?:inity)?)"
_DEPTH = 4  # lists and objects in each other that are skipped as one: an image, an object with an image


def _sound(depth: int) -> str:
    """The pattern of values nested so deep at most."""
    scalar = f"{_STRING}|{_NUMBER}|true|false|null"
    if not depth:
        return f"(?>{scalar})"
    item = _sound(depth - 1) + _BLANKS
    member = f"{_STRING}{_BLANKS}:{_BLANKS}{item}"
    array = rf"\[{_BLANKS}(?:{item}(?:,{_BLANKS}(?!\])|(?=\])))*+\]"
    object_ = rf"\{{{_BLANKS}(?:{member}(?:,{_BLANKS}(?!\}})|(?=\}})))*+\}}"
    return f"(?>{scalar}|{array}|{object_})"


def _compiled(pattern: str) -> re.Pattern[bytes]:
    return re.compile(pattern.encode())


_SOUND = _sound(_DEPTH)
BLANKS = _compiled(_BLANKS)
VALUE = _compiled(_SOUND)
ELEMENTS = _compiled(f"(?:{_SOUND}{_BLANKS},{_BLANKS})*+")
MEMBERS = _compiled(f"(?:{_STRING}{_BLANKS}:{_BLANKS}{_SOUND}{_BLANKS},{_BLANKS})*+")
PLAIN = _compiled(_PLAIN)
SIMPLE_ESCAPE = _compiled(r'["\\/bfnrt]')
FOUR_DIGITS = _compiled(f"{_HEX}{{4}}")
DIGITS = _compiled("[0-9]*+")
INTEGER = _compiled("0|[1-9][0-9]*+")
LARGEST = 1.7976931348623157e307  # a tenth of the largest double: one more digit and it is too big
OPEN = {b"[": b"]", b"{": b"}"}


def find(body: bytes) -> Fault | None:
    """The first fault of the first document in ``body``; None where RapidJSON takes it."""
    try:
        at = _skip(body, len(_BOM) if body.startswith(_BOM) else 0)
        if _peek(body, at) in (b"", b"\0"):
            raise _Refused(Words.EMPTY, at)
        _document(body, at)
    except _Refused as refused:
        return refused.fault
    return None


def _document(body: bytes, at: int) -> None:
    """Raises `_Refused` for the first fault of the value at `at`."""
    inside: list[bytes] = []  # what closes the lists and objects around
    due = True  # an item begins here, rather than what follows one
    while due or inside:
        if due:
            at = _value(body, at, inside)
            first = _peek(body, at)
            if first not in OPEN:
                due, at = False, _scalar(body, at)
            elif sound := VALUE.match(body, at):
                due, at = False, sound.end()
            else:
                inside.append(OPEN[first])
                at = _skip(body, at + 1)
                due = not body.startswith(OPEN[first], at)
            continue
        at = _skip(body, at)
        found = _peek(body, at)
        if found not in (b",", inside[-1]):
            raise _Refused(Words.ELEMENT if inside[-1] == b"]" else Words.MEMBER, at)
        if found == b",":
            due, at = True, _skip(body, at + 1)
        else:
            inside.pop()
            at += 1


def _value(body: bytes, at: int, inside: list[bytes]) -> int:
    """Where the next value begins that may not be sound; in an object, behind its name."""
    if not inside:
        return at
    if inside[-1] == b"]":
        return _end(ELEMENTS, body, at)
    at = _end(MEMBERS, body, at)
    if not body.startswith(b'"', at):
        raise _Refused(Words.NAME, at)
    at = _skip(body, _string(body, at))
    if not body.startswith(b":", at):
        raise _Refused(Words.COLON, at)
    return _skip(body, at + 1)


def _scalar(body: bytes, at: int) -> int:
    first = _peek(body, at)
    if first == b'"':
        return _string(body, at)
    for word in (b"null", b"true", b"false"):
        if first == word[:1]:
            return _literal(body, at, word)
    return _number(body, at)


def _literal(body: bytes, at: int, word: bytes) -> int:
    for length in range(len(word)):
        if not body.startswith(word[: length + 1], at):
            raise _Refused(Words.VALUE, at + length)
    return at + len(word)


def _string(body: bytes, at: int) -> int:
    at += 1
    while True:
        at = _end(PLAIN, body, at)
        found = _peek(body, at)
        if found == b'"':
            return at + 1
        if found != b"\\":
            raise _Refused(Words.QUOTE if found in (b"", b"\0") else Words.ESCAPE, at)
        if SIMPLE_ESCAPE.match(body, at + 1):
            at += 2
        elif body.startswith(b"u", at + 1):
            at = _escaped(body, at)
        else:
            raise _Refused(Words.ESCAPE, at)


def _escaped(body: bytes, at: int) -> int:
    """Where \\uXXXX ends, or the two of a surrogate pair. Faults are reported at its beginning."""
    if not FOUR_DIGITS.match(body, at + 2):
        raise _Refused(Words.HEX, at)
    if not 0xD800 <= int(body[at + 2 : at + 6], 16) <= 0xDBFF:
        return at + 6
    if not body.startswith(b"\\u", at + 6):
        raise _Refused(Words.SURROGATE, at)
    if not FOUR_DIGITS.match(body, at + 8):
        raise _Refused(Words.HEX, at)
    if not 0xDC00 <= int(body[at + 8 : at + 12], 16) <= 0xDFFF:
        raise _Refused(Words.SURROGATE, at)
    return at + 12


def _number(body: bytes, start: int) -> int:
    at = start + body.startswith(b"-", start)
    first = _peek(body, at)
    if first == b"N":
        return _literal(body, at, b"NaN")
    if first == b"I":
        end = _literal(body, at, b"Inf")
        return _literal(body, end, b"inity") if body.startswith(b"i", end) else end
    integer = INTEGER.match(body, at)
    if not integer:
        raise _Refused(Words.VALUE, at)
    digits, at = integer[0], integer.end()
    if len(digits) > 308 and float(digits[:-1]) >= LARGEST:
        raise _Refused(Words.TOO_BIG, start)
    decimals = 0
    if body.startswith(b".", at):
        end = _end(DIGITS, body, at + 1)
        if end == at + 1:
            raise _Refused(Words.FRACTION, end)
        decimals, at = end - at - 1, end
    if _peek(body, at) in (b"e", b"E"):
        at += 1
        sign = _peek(body, at)
        at += sign in (b"-", b"+")
        end = _end(DIGITS, body, at)
        if end == at:
            raise _Refused(Words.EXPONENT, at)
        if sign != b"-" and float(body[at:end]) > 308 + decimals:
            raise _Refused(Words.TOO_BIG, start)
        at = end
    return at


def _peek(body: bytes, at: int) -> bytes:
    return body[at : at + 1]


def _skip(body: bytes, at: int) -> int:
    return _end(BLANKS, body, at)


def _end(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    """Where the match of a pattern ends that matches everywhere, nothing perhaps."""
    return pattern.match(body, at).end()  # type: ignore[union-attr]

"""JSON as RapidJSON reads and prints it, for documents that orjson refuses and for error messages.

The real server parses with RapidJSON and its NaN-and-infinity option: it accepts NaN, Inf and Infinity, takes the first
of several equal keys, ignores what follows the document, and names the kind and offset of a fault. It is slow here
(pure Python) and only used off the fast path. Invalid UTF-8 passes through as surrogate escapes.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from serving.engines.embedded_tfserving.status import ServingError, invalid

MAX_DEPTH = 200
SPACE = re.compile(r"[ \t\n\r]*")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)")
FRACTION = re.compile(r"\.[0-9]+")
EXPONENT = re.compile(r"[eE][+-]?[0-9]+")
SPECIAL = re.compile(r"(-?)(NaN|Inf(?:inity)?)")
STRING = re.compile(r'[^"\\\x00-\x1f]*')
ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fault(self, reason: str, at: int | None = None) -> ServingError:
        offset = self.at if at is None else at
        offset = len(self.text[:offset].encode("utf-8", "surrogateescape"))
        return invalid(f"JSON Parse error: {reason} at offset: {offset}")

    def space(self) -> str:
        """Skip white space and return the next character, or nothing at the end."""
        self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr] # matches the empty text too
        return self.text[self.at : self.at + 1]

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.fault("Terminate parsing due to Handler error.")
        char = self.text[self.at : self.at + 1]
        if char == "{":
            return self.object(depth)
        if char == "[":
            return self.array(depth)
        if char == '"':
            return self.string()
        for word, meaning in (("true", True), ("false", False), ("null", None)):
            if char == word[0]:
                for position, letter in enumerate(word):
                    if self.text[self.at + position : self.at + position + 1] != letter:
                        raise self.fault("Invalid value.", self.at + position)
                self.at += len(word)
                return meaning
        return self.number()

    def object(self, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self.at += 1
        if self.space() == "}":
            self.at += 1
            return members
        while True:
            if self.text[self.at : self.at + 1] != '"':
                raise self.fault("Missing a name for object member.")
            name = self.string()
            if self.space() != ":":
                raise self.fault("Missing a colon after a name of object member.")
            self.at += 1
            self.space()
            value = self.value(depth + 1)
            members.setdefault(name, value)
            char = self.space()
            if char == "}":
                self.at += 1
                return members
            if char != ",":
                raise self.fault("Missing a comma or } after an object member.")
            self.at += 1
            self.space()

    def array(self, depth: int) -> list[Any]:
        elements: list[Any] = []
        self.at += 1
        if self.space() == "]":
            self.at += 1
            return elements
        while True:
            elements.append(self.value(depth + 1))
            char = self.space()
            if char == "]":
                self.at += 1
                return elements
            if char != ",":
                raise self.fault("Missing a comma or ] after an array element.")
            self.at += 1
            self.space()

    def string(self) -> str:
        start = self.at
        self.at += 1
        parts = []
        while True:
            plain = STRING.match(self.text, self.at)
            assert plain is not None
            parts.append(plain[0])
            self.at = plain.end()
            char = self.text[self.at : self.at + 1]
            if char == '"':
                self.at += 1
                return "".join(parts)
            if char != "\\":
                if char == "":
                    raise self.fault("Missing a closing quotation mark in string.", start)
                raise self.fault("Invalid encoding in string.")
            escape = self.text[self.at + 1 : self.at + 2]
            if escape in ESCAPES and escape:
                parts.append(ESCAPES[escape])
                self.at += 2
            elif escape == "u":
                parts.append(self.unicode())
            else:
                raise self.fault("Invalid escape character in string.")

    def unicode(self) -> str:
        code = self.hexadecimal()
        if 0xD800 <= code < 0xDC00:
            if self.text[self.at : self.at + 2] != "\\u":
                raise self.fault("The surrogate pair in string is invalid.")
            low = self.hexadecimal()
            if not 0xDC00 <= low < 0xE000:
                raise self.fault("The surrogate pair in string is invalid.")
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        elif 0xDC00 <= code < 0xE000:
            raise self.fault("The surrogate pair in string is invalid.")
        return chr(code)

    def hexadecimal(self) -> int:
        digits = self.text[self.at + 2 : self.at + 6]
        if len(digits) < 4 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
            raise self.fault("Incorrect hex digit after \\u escape in string.")
        self.at += 6
        return int(digits, 16)

    def number(self) -> int | float:
        start = self.at
        special = SPECIAL.match(self.text, start)
        if special:
            self.at = special.end()
            return math.nan if special[2] == "NaN" else -math.inf if special[1] else math.inf
        whole = NUMBER.match(self.text, start)
        if whole is None:
            raise self.fault("Invalid value.", start + self.text.startswith("-", start))
        self.at = whole.end()
        is_float = False
        if self.text[self.at : self.at + 1] == ".":
            fraction = FRACTION.match(self.text, self.at)
            if fraction is None:
                raise self.fault("Miss fraction part in number.", self.at + 1)
            self.at, is_float = fraction.end(), True
        if self.text[self.at : self.at + 1] in ("e", "E"):
            exponent = EXPONENT.match(self.text, self.at)
            if exponent is None:
                raise self.fault("Miss exponent in number.", self.at + 1)
            self.at, is_float = exponent.end(), True
        text = self.text[start : self.at]
        if not is_float and (len(text) < 19 or -(2**63) <= int(text[:40]) < 2**64):
            return int(text)
        number = float(text)
        if math.isinf(number):
            raise self.fault("Number too big to be stored in double.", start)
        return number


def parse(body: bytes) -> Any:
    """The document's value; raises `ServingError` with RapidJSON's message."""
    parser = _Parser(body.decode("utf-8", "surrogateescape").removeprefix("\ufeff"))
    if not parser.space():
        raise invalid("JSON Parse error: The document is empty")
    return parser.value(0)


def type_name(value: Any) -> str:
    """RapidJSON's name of a value's type, as messages write it."""
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def text(value: Any, indent: int = 0) -> str:
    """A value as the real server prints it: objects over several lines, arrays on one."""
    if isinstance(value, dict):
        if not value:
            return "{}"
        pad = " " * (indent + 4)
        members = [f"{pad}{_quoted(name)}: {text(item, indent + 4)}" for name, item in value.items()]
        return "{\n" + ",\n".join(members) + "\n" + " " * indent + "}"
    if isinstance(value, list):
        return "[" + ", ".join(text(item, indent) for item in value) + "]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)

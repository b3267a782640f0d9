"""What a server wants to be shown: headers whose values are read where they are used, and are kept in no file."""

from __future__ import annotations

import os
from pathlib import Path

from models.problem import Problem
from serving.target import SecretHeader, Target


def headers_of(target: Target) -> list[tuple[str, str]]:
    """The target's secret headers with their values, as they are now. Raises `Problem` for one that cannot be read."""
    return [(one.name, one.prefix + _value(target.name, one)) for one in target.secret_headers]


def login_of(target: Target) -> str:
    """ "user:password" for the target's proxy; empty: it wants none. Raises `Problem`."""
    login = target.proxy.login if target.proxy else None
    if login is None:
        return ""
    found = _value(target.name, login)
    if ":" not in found:
        raise Problem(f"target.{target.name}.proxy_login: what it names has to hold user:password, and has no colon")
    return found


def variables_of(target: Target) -> dict[str, str]:
    """The environment variables that hold the target's secrets, as far as they are set: for a process that asks it."""
    login = target.proxy.login if target.proxy else None
    named = (one.env for one in (*target.secret_headers, *((login,) if login else ())) if one.env)
    return {name: os.environ[name] for name in named if name in os.environ}


def _value(target: str, header: SecretHeader) -> str:
    where = f"target.{target}: the value of {header.name}"
    if header.env:
        value = os.environ.get(header.env, "")
        if not value.strip():
            raise Problem(f"{where} is to be in the environment variable {header.env}, which is not set: export it")
        where = f"{where} (environment variable {header.env})"
    else:
        try:
            value = Path(header.file).expanduser().read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise Problem(f"{where} is to be in the file {header.file}: {_why(error)}") from None
        if not value.strip():
            raise Problem(f"{where} is to be in the file {header.file}, which is empty")
        where = f"{where} (file {header.file})"
    value = value.strip()
    if not all(0x20 <= ord(character) < 0x7F for character in value):
        raise Problem(f"{where} has characters that a header cannot hold: use one line of ASCII")
    return value


def _why(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or "cannot be read" if isinstance(error, OSError) else "is no text"

"""HTTP proxies. Tandem's clients go past those that the environment names, as load through one would measure it, too;
a target may ask for one."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import socket
import urllib.request
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from models.problem import Problem
from serving import credentials
from serving.target import Target

ENVIRONMENT = "environment"
"""As a target's proxy: the one that the environment names."""
AUTHORIZATION = "Proxy-Authorization"
_LONGEST_ANSWER = 65_536


@dataclass(frozen=True)
class Way:
    """To a target, through a proxy.

    proxy    "host:port" of it
    named    what names it, for errors: "target.blue.proxy = 'http://proxy:3128'"
    fields   headers for the proxy, which hold a password
    connect  the request for a tunnel to the server (RFC 9110, section 9.3.6); empty: requests name the whole URL
    question one that the proxy answers itself, where there is no tunnel (the same, section 7.6.2)
    """

    proxy: str
    named: str
    fields: tuple[tuple[str, str], ...] = ()
    connect: bytes = b""
    question: bytes = b""


def variable(host: str, *, encrypted: bool) -> str:
    """The variable that names the proxy by which other programs would reach ``host`` (no_proxy is honoured); empty:
    none does, or it is this machine."""
    if _is_loopback(host) or urllib.request.proxy_bypass(host):
        return ""
    scheme = "https" if encrypted else "http"
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name)), "")


def variables_for(target: Target) -> dict[str, str]:
    """The environment's variables for proxies, as far as they are set, for a process that asks the target; none where
    it heeds none of them."""
    if target.proxy is None or target.proxy.url != ENVIRONMENT:
        return {}
    names = [f"{one}_proxy" for one in ("http", "https", "all", "no")]
    return {name: os.environ[name] for low in names for name in (low, low.upper()) if name in os.environ}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address(url: str) -> str:
    """ "host:port" of a proxy's URL without user and password. Raises ValueError with the fix."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user and password in an address: use proxy_login, so that they are in no file of the run")
    return _address(parts)


def _address(parts: SplitResult) -> str:
    if parts.scheme != "http":
        raise ValueError("use http://HOST:PORT: a proxy is spoken to without TLS; what goes through keeps its own")
    try:
        port = parts.port
    except ValueError:
        port = None
    if not port or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("use http://HOST:PORT")
    return f"[{parts.hostname}]:{port}" if ":" in parts.hostname else f"{parts.hostname}:{port}"


def way(target: Target, protocol: str) -> Way | None:
    """How ``target`` is reached over ``protocol``; None: directly. Raises `Problem` for a proxy that the environment
    names and that cannot be used, and for a password that cannot be read."""
    if target.proxy is None:
        return None
    if target.proxy.url == ENVIRONMENT:
        found = _of_environment(target, protocol)
        if found is None:
            return None
        proxy, login, named = found
    else:
        proxy, login = address(target.proxy.url), credentials.login_of(target)
        named = f"target.{target.name}.proxy = {target.proxy.url!r}"
    fields: tuple[tuple[str, str], ...] = ()
    if login:
        fields = ((AUTHORIZATION, f"Basic {base64.b64encode(login.encode()).decode('ascii')}"),)
    return Way(proxy, named, fields, *_requests(target, protocol, fields))


def _of_environment(target: Target, protocol: str) -> tuple[str, str, str] | None:
    """ "host:port", "user:password" or "", and what names it."""
    encrypted = target.tls(protocol) is not None
    name = variable(_host(target, protocol), encrypted=encrypted)
    if not name:
        return None
    where = f"target.{target.name}.proxy = {ENVIRONMENT!r}: {name}"
    value = os.environ[name].strip()
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        proxy = _address(parts)
    except ValueError as error:
        raise Problem(f"{where} names a proxy that is not used: {error}") from None
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    return proxy, login, where


def _host(target: Target, protocol: str) -> str:
    return target.address(protocol).rpartition(":")[0].strip("[]")


def _requests(target: Target, protocol: str, fields: tuple[tuple[str, str], ...]) -> tuple[bytes, bytes]:
    """What asks for a tunnel: for all that is no plain HTTP/1.1, and where the user gives the name of the host, which a
    proxy would take from the URL. Else what asks for the proxy itself."""
    plain = protocol != "grpc" and not target.http2 and target.tls(protocol) is None
    place = target.address(protocol)
    own = [f"Host: {place}", *(f"{name}: {value}" for name, value in fields), "", ""]
    if plain and not any(name.lower() == "host" for name, _ in target.headers):
        head = [f"OPTIONS http://{place}/ HTTP/1.1", "Max-Forwards: 0", "Content-Length: 0"]
        return b"", "\r\n".join((*head, *own)).encode("latin-1")
    return "\r\n".join((f"CONNECT {place} HTTP/1.1", *own)).encode("latin-1"), b""


def connection(target: Target, protocol: str, found: Way, timeout_s: float) -> socket.socket:
    """A connection to the target, as far as the proxy lets it through. Raises `Problem`."""
    host, _, port = found.proxy.rpartition(":")
    try:
        connected = socket.create_connection((host.strip("[]"), int(port)), timeout_s)
    except socket.gaierror as error:
        raise Problem(f"{found.named}: the proxy's name cannot be resolved ({error.strerror})") from None
    except OSError as error:
        why = error.strerror or error
        raise Problem(f"{found.named}: the proxy cannot be connected to ({why}); is it up?") from None
    if found.connect:
        try:
            _open_tunnel(connected, target, protocol, found)
        except Problem:
            connected.close()
            raise
    return connected


def check(connected: socket.socket, target: Target, protocol: str, found: Way) -> None:
    """Ask the proxy of a `connection` without a tunnel whether it serves us. Raises `Problem` where it does not."""
    if not found.question:
        return
    try:
        connected.sendall(found.question)
        answer = _answer(connected)
    except OSError:
        return  # not every proxy knows this question, nor every server behind
    if why := refusal(target, protocol, found, answer):
        raise Problem(why)


def _open_tunnel(connected: socket.socket, target: Target, protocol: str, found: Way) -> None:
    try:
        connected.sendall(found.connect)
        answer = _answer(connected)
    except OSError as error:
        why = error.strerror or str(error)
        raise Problem(f"{found.named}: the proxy does not answer CONNECT {target.address(protocol)} ({why})") from None
    if why := refusal(target, protocol, found, answer):
        raise Problem(why)


def _answer(connected: socket.socket) -> bytes:
    """Read byte by byte: what follows is the server's."""
    found = bytearray()
    while not found.endswith(b"\r\n\r\n"):
        piece = connected.recv(1)
        if not piece:
            raise ConnectionResetError("it closed the connection")
        found += piece
        if len(found) > _LONGEST_ANSWER:
            raise ConnectionResetError("its answer has no end")
    return bytes(found)


def refusal(target: Target, protocol: str, found: Way, answer: bytes) -> str:
    """Why the proxy lets nothing through, in a line that names the key and the fix; empty: it does. ``answer``: the
    proxy's head."""
    status = re.match(rb"HTTP/1\.\d (\d{3})(?: ([^\r\n]*))?\r?\n", answer)
    if status is None:
        return f"{found.named}: no HTTP proxy answers there"
    code = int(status[1])
    if 200 <= code < 300 or (found.question and code != 407):
        return ""  # without a tunnel, anything else may be the server's own
    said = f"HTTP {code} {(status[2] or b'').decode('latin-1')[:80]}".strip()
    if code == 407 or (code == 401 and target.proxy and target.proxy.login):
        return f"{found.named}: {said}: {wants_login(target)}"
    place = target.address(protocol)
    return f"{found.named}: it does not connect to {place} ({said}): allow it there, or leave proxy out"


def wants_login(target: Target) -> str:
    """What to do where a proxy wants another user and password."""
    if target.proxy and target.proxy.url == ENVIRONMENT:
        return "the variable has to have the proxy's user and password, http://USER:PASSWORD@HOST:PORT"
    if target.proxy and target.proxy.login:
        return "it knows no such user and password: mend what proxy_login names"
    return 'it wants user and password: proxy_login = {env = "NAME"}, which holds user:password'

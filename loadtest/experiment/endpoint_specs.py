"""Servers that are up already, as an experiment's file names them: where they are, and what they want to be shown.

No secret stands here, only where one is: an environment variable or a file. So an experiment may be saved as it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadtest.experiment import conversion
from models.problem import Problem
from serving import proxies
from serving.engines import http_request
from serving.engines.engine import Engine
from serving.target import Caveat, HttpRequest, Proxy, SecretHeader, Target, Tls

# A value that anybody may read has no place in these.
_FOR_SECRETS = ("authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "apikey")
# What a request says of itself.
_OUR_OWN = ("content-length", "transfer-encoding", "connection", "te", "upgrade")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # a header's name (RFC 9110, section 5.6.2)
_INTO_SECRETS = "use token or secret_headers, so that the value is in no file of the run"


@dataclass(frozen=True)
class Secret:
    """Where a secret is: in an environment variable, or in a file; `prefix` stands before it."""

    env: str = ""
    file: str = ""
    prefix: str = ""


@dataclass(frozen=True)
class EndpointSpec:
    """A server that somebody keeps up, as one [[target]] says.

    url             of its HTTP API: "https://host:port/base"
    grpc            of its gRPC API: "grpcs://host:port", or "host:port", which is not encrypted
    metrics         of its Prometheus page: "http://host:port/metrics"; empty: it is not scraped
    proxy           the HTTP proxy that it is reached through, "http://host:port", or `ENVIRONMENT`; empty: none
    proxy_login     where "user:password" for the proxy is
    model, version  what it calls the model, and the version to ask for; empty: the experiment's model, any version
    tls             see `serving.target.Tls`
    http2           load over REST goes over HTTP/2
    headers         sent with every request; `token`: as "Authorization: Bearer …"; `secret_headers`: likewise
    input_shape     of one sample, without the batch, where the server does not say; `input_shapes`: of several inputs
    output          the output that is judged, where the model has several
    request         how a server is asked whose engine does not say (see `serving.target.HttpRequest`)
    """

    url: str = ""
    grpc: str = ""
    metrics: str = ""
    proxy: str = ""
    proxy_login: Secret = field(default_factory=Secret)
    model: str = ""
    version: str = ""
    tls: Tls = field(default_factory=Tls)
    http2: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    token: Secret = field(default_factory=Secret)
    secret_headers: Mapping[str, Secret] = field(default_factory=dict)
    input_shape: tuple[int, ...] = ()
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    output: str = ""
    request: HttpRequest = field(default_factory=HttpRequest)

    def offers(self, protocol: str) -> bool:
        """Whether it has an address for a protocol."""
        return bool(self.grpc if protocol == "grpc" else self.url)

    def target(self, name: str, engine: Engine, model: str) -> Target:
        """As its clients see it. ``model``: the experiment's."""
        ca, certificate, key = map(_absolute, (self.tls.ca, self.tls.certificate, self.tls.key))
        tls = Tls(ca, certificate, key, self.tls.server_name)
        rest, grpc = _place(self.url, "url") if self.url else None, _place(self.grpc, "grpc") if self.grpc else None
        return Target(
            name=name,
            engine=engine.id,
            engine_version="",
            runtime="remote",
            model=self.model or model,
            version=int(self.version) if self.version.isdecimal() else 0,
            input_shape=self.input_shape,
            input_shapes=dict(self.input_shapes),
            output=self.output,
            classes=0,
            pinned_version=self.version,
            grpc=grpc.address if grpc else "",
            rest=rest.address if rest else "",
            metrics=_page(self.metrics) if self.metrics else None,
            metrics_tls=tls if self.metrics and _place(self.metrics, "metrics").encrypted else None,
            proxy=Proxy(self.proxy.rstrip("/"), self._login()) if self.proxy else None,
            base_path=rest.path if rest else "",
            rest_tls=tls if rest and rest.encrypted else None,
            grpc_tls=tls if grpc and grpc.encrypted else None,
            headers=tuple(self.headers.items()),
            secret_headers=tuple(
                SecretHeader(header, one.env, _absolute(one.file), one.prefix)
                for header, one in self._secrets().items()
            ),
            request=self.request if self.request != HttpRequest() else None,
            http2=self.http2,
            caveats=(Caveat.KEPT_UP, *((Caveat.PROXY,) if self.proxy else ())),
            is_endpoint=True,
        )

    def _login(self) -> SecretHeader | None:
        one = self.proxy_login
        return SecretHeader(proxies.AUTHORIZATION, one.env, _absolute(one.file)) if one != Secret() else None

    def _secrets(self) -> dict[str, Secret]:
        token = {} if self.token == Secret() else {"Authorization": Secret(self.token.env, self.token.file, "Bearer ")}
        return {**token, **self.secret_headers}

    def values(self) -> dict[str, Any]:
        """The inverse of `parse`: what is not as it would be anyway."""
        return _unlike(asdict(self), asdict(_NOTHING))


def _absolute(path: str) -> str:
    """The generator runs in another folder."""
    return str(Path(path).expanduser().absolute()) if path else ""


def _unlike(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """What of some values, and of those in them, is not as usual."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            beside = usual.get(key, asdict(Secret()))
            if inner := _unlike(value, beside):
                found[key] = inner
        elif value != usual.get(key):
            found[key] = list(value) if isinstance(value, tuple) else value
    return found


_NOTHING = EndpointSpec()
KEYS = tuple(one.name for one in fields(EndpointSpec))


def parse(table: Mapping[str, Any], where: str) -> EndpointSpec | None:
    """The endpoint of a table's keys `KEYS`; None where it has none of them. Raises `Problem` for what cannot be."""
    if not table:
        return None
    for key in ("token", "secret_headers", "proxy_login"):
        _no_plain_secret(key, table.get(key), where)
    given = dict(table)
    if isinstance(given.get("version"), int):
        given["version"] = str(given["version"])
    found = EndpointSpec(**conversion.arguments(EndpointSpec, given, where))
    _check(found, where)
    return found


def _no_plain_secret(key: str, value: Any, where: str) -> None:
    values = value.values() if key == "secret_headers" and isinstance(value, dict) else [value]
    if any(isinstance(one, str) for one in values):
        raise Problem(f'{where}.{key}: a secret does not stand in this file: use {{env = "NAME"}} or {{file = "PATH"}}')


def _check(found: EndpointSpec, where: str) -> None:
    if not found.url and not found.grpc:
        raise Problem(f"{where}: give it a url, a grpc address, or both; without them Tandem starts the server itself")
    for key in _SCHEMES:
        if getattr(found, key):
            try:
                _place(getattr(found, key), key)
            except ValueError as error:
                shown = "" if "@" in getattr(found, key) else f" = {getattr(found, key)!r}"  # it holds a password
                raise Problem(f"{where}.{key}{shown}: {error}") from None
    encrypted = any(getattr(found, key) and _place(getattr(found, key), key).encrypted for key in _SCHEMES)
    if found.tls != Tls() and not encrypted:
        raise Problem(f"{where}.tls: neither its url (https://…) nor its grpc (grpcs://…) nor metrics is encrypted")
    if found.tls.key and not found.tls.certificate:
        raise Problem(f"{where}.tls.key: name the certificate that it belongs to, too, as tls.certificate")
    if any(size < 1 for size in found.input_shape):
        raise Problem(
            f"{where}.input_shape = {list(found.input_shape)}: use sizes of one sample, such as [224, 224, 3]"
        )
    for name, shape in found.input_shapes.items():
        if any(size < 1 for size in shape):
            raise Problem(f"{where}.input_shapes.{name} = {list(shape)}: use sizes of one sample, such as [128]")
    _check_proxy(found, where)
    if not re.fullmatch(r"[\w.:/@+-]*", found.model) or not re.fullmatch(r"[\w.-]*", found.version):
        key = "version" if re.fullmatch(r"[\w.:/@+-]*", found.model) else "model"
        raise Problem(f"{where}.{key} = {getattr(found, key)!r}: no name of a model or version")
    try:
        http_request.check(found.request)
    except ValueError as error:
        raise Problem(f"{where}.request.{error}") from None
    _check_headers(found, where)


def _check_proxy(found: EndpointSpec, where: str) -> None:
    login = found.proxy_login
    if found.proxy and found.proxy != proxies.ENVIRONMENT:
        try:
            proxies.address(found.proxy)
        except ValueError as error:
            shown = "" if "@" in found.proxy else f" = {found.proxy!r}"  # it holds a password
            raise Problem(f"{where}.proxy{shown}: {error}") from None
    if login == Secret():
        return
    if not found.proxy or found.proxy == proxies.ENVIRONMENT:
        raise Problem(f"{where}.proxy_login: for a proxy that is named here, proxy = 'http://HOST:PORT': leave it out")
    if bool(login.env) == bool(login.file) or login.prefix:
        raise Problem(f'{where}.proxy_login: use either {{env = "NAME"}} or {{file = "PATH"}}, for user:password')


def _check_headers(found: EndpointSpec, where: str) -> None:
    for key, names in (("headers", found.headers), ("secret_headers", found.secret_headers)):
        for name in names:
            if not re.fullmatch(_TOKEN, name):
                raise Problem(f"{where}.{key}.{name}: not a header's name")
            if name.lower() in _OUR_OWN:
                raise Problem(f"{where}.{key}.{name}: Tandem sets it itself: leave it out")
    for name, value in found.headers.items():
        if name.lower() in _FOR_SECRETS:
            raise Problem(f"{where}.headers.{name}: {_INTO_SECRETS}")
        if not re.fullmatch(r"[\x20-\x7e]*", value):
            raise Problem(f"{where}.headers.{name}: use ASCII on one line")
    for key, secret in {
        "token": found.token,
        **{f"secret_headers.{k}": v for k, v in found.secret_headers.items()},
    }.items():
        if secret == Secret() and key == "token":
            continue
        if bool(secret.env) == bool(secret.file):
            raise Problem(f'{where}.{key}: use either {{env = "NAME"}} or {{file = "PATH"}}')
        if key == "token" and secret.prefix:
            raise Problem(
                f"{where}.token.prefix: a token's is Bearer; for another one use secret_headers.Authorization"
            )


@dataclass(frozen=True)
class _Place:
    address: str
    path: str
    encrypted: bool


_HTTP = {"http": 80, "https": 443}
_SCHEMES = {"url": _HTTP, "grpc": {"grpc": 0, "grpcs": 443}, "metrics": _HTTP}


def _place(text: str, key: str) -> _Place:
    """Where an address points to. Raises ValueError with the fix."""
    schemes = _SCHEMES[key]
    known = " or ".join(f"{scheme}://" for scheme in schemes)
    if "://" not in text:
        if key != "grpc":
            raise ValueError(f"use {known}HOST:PORT")
        text = f"grpc://{text}"
    parts = urlsplit(text)
    if parts.scheme not in schemes:
        raise ValueError(f"use {known}HOST:PORT")
    if parts.username or parts.password:
        raise ValueError(f"no user and password in an address: {_INTO_SECRETS}")
    if parts.query or parts.fragment or (key == "grpc" and parts.path.strip("/")):
        raise ValueError("give the address alone, without what follows it")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("use a port from 1 to 65535") from None
    host = parts.hostname or ""
    if not _is_host(host):
        raise ValueError(f"use {known}HOST:PORT")
    port = port or schemes[parts.scheme]
    if not port:
        raise ValueError("name its port, too: host:port")
    bracketed = f"[{host}]" if ":" in host else host
    return _Place(f"{bracketed}:{port}", parts.path.rstrip("/"), parts.scheme in ("https", "grpcs"))


def _page(text: str) -> str:
    """The address of a page, with its port."""
    place = _place(text, "metrics")
    return f"http{'s' if place.encrypted else ''}://{place.address}{place.path or '/'}"


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            ipaddress.IPv6Address(host.partition("%")[0])
        except ValueError:
            return False
        return True
    return bool(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?", host))

"""What a reader should know of proxies: that the load went past one which the environment names, or through one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from loadtest.experiment.endpoint_specs import EndpointSpec
from loadtest.experiment.records import ProxyNotUsed, ProxyUsed
from loadtest.experiment.target_specs import TargetSpec
from serving import proxies


def notes(targets: Iterable[TargetSpec]) -> list[ProxyNotUsed | ProxyUsed]:
    """For each proxy that an endpoint asks for, the endpoints behind it; and for each variable that names one which is
    not heeded, the endpoints that other programs would reach through it."""
    past: dict[str, list[str]] = {}
    through: dict[str, list[str]] = {}
    for target in targets:
        if target.endpoint is None:
            continue
        asked = target.endpoint.proxy
        for name in _variables(target.endpoint) if asked in ("", proxies.ENVIRONMENT) else ():
            _add(through if asked else past, name, target.name)
        if asked not in ("", proxies.ENVIRONMENT):
            _add(through, asked, target.name)
    return [
        *(ProxyUsed(proxy=proxy, targets=names) for proxy, names in through.items()),
        *(ProxyNotUsed(variable=name, targets=names) for name, names in past.items()),
    ]


def _variables(endpoint: EndpointSpec) -> Iterator[str]:
    """The variables that name a proxy for its addresses."""
    for address in filter(None, (endpoint.url, endpoint.grpc)):
        parts = urlsplit(address if "://" in address else f"grpc://{address}")
        if name := proxies.variable(parts.hostname or "", encrypted=parts.scheme in ("https", "grpcs")):
            yield name


def _add(found: dict[str, list[str]], key: str, target: str) -> None:
    names = found.setdefault(key, [])
    if target not in names:
        names.append(target)

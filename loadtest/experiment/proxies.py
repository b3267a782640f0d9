"""What a reader should know where the environment names a proxy: the load went past it."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from loadtest.experiment.records import ProxyNotUsed
from loadtest.experiment.target_specs import TargetSpec
from serving import proxies


def not_used(targets: Iterable[TargetSpec]) -> list[ProxyNotUsed]:
    """For each variable that names one, the endpoints that other programs would reach through it."""
    found: dict[str, list[str]] = {}
    for target in targets:
        for address in filter(None, (target.endpoint.url, target.endpoint.grpc) if target.endpoint else ()):
            parts = urlsplit(address if "://" in address else f"grpc://{address}")
            name = proxies.variable(parts.hostname or "", encrypted=parts.scheme in ("https", "grpcs"))
            if name and target.name not in found.setdefault(name, []):
                found[name].append(target.name)
    return [ProxyNotUsed(variable=name, targets=names) for name, names in found.items()]

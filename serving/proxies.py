"""Proxies that the environment names, which Tandem's clients go past: load through one would measure it, too."""

from __future__ import annotations

import ipaddress
import os
import urllib.request


def variable(host: str, *, encrypted: bool) -> str:
    """The variable that names the proxy by which other programs would reach ``host`` (no_proxy is honoured); empty:
    none does, or it is this machine."""
    if _is_loopback(host) or urllib.request.proxy_bypass(host):
        return ""
    scheme = "https" if encrypted else "http"
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name)), "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

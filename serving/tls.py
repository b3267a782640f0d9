"""TLS as this side of a connection sees it: what it trusts, what it shows, and what went wrong, in a few words."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from models.problem import Problem
from serving.target import Target, Tls

HTTP1, HTTP2 = ["http/1.1"], ["h2"]


def context(target: Target, protocol: str, *, http2: bool = False) -> ssl.SSLContext | None:
    """What a connection to ``target`` for ``protocol`` is wrapped in; None: it is not encrypted. ``http2``: REST is to
    go over it, too. Raises `Problem` for a file that cannot be used."""
    asked = target.tls(protocol)
    if asked is None:
        return None
    where = f"target.{target.name}.tls"
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    found.set_alpn_protocols(HTTP2 if protocol == "grpc" or http2 else HTTP1)
    if asked.ca:
        text = _text(asked.ca, f"{where}.ca")
        try:
            found.load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError) as error:
            raise Problem(f"{where}.ca = {asked.ca!r}: no certificates in PEM form ({reason(error)})") from None
    else:
        found.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if asked.certificate:
        _text(asked.certificate, f"{where}.certificate")
        if asked.key:
            _text(asked.key, f"{where}.key")
        try:
            # An empty password: a key that has one is an error, and no question on the terminal.
            found.load_cert_chain(asked.certificate, asked.key or None, password="")
        except (ssl.SSLError, ValueError) as error:
            raise Problem(
                f"{where}.certificate = {asked.certificate!r}: no certificate and key of its own, without a password, "
                f"in PEM form ({reason(error)})"
            ) from None
    return found


def server_name(target: Target, protocol: str) -> str:
    """The name that the server's certificate must be for."""
    asked = target.tls(protocol)
    return (asked.server_name if asked else "") or target.address(protocol).rpartition(":")[0].strip("[]")


def trusted(asked: Tls) -> bytes | None:
    """The authorities that ``asked`` trusts, as PEM, for libraries that bring their own; None where the system has no
    file of them."""
    if asked.ca:
        return Path(asked.ca).read_bytes()
    paths = ssl.get_default_verify_paths()
    return Path(paths.cafile).read_bytes() if paths.cafile else None


def shown(asked: Tls) -> tuple[bytes, bytes] | None:
    """The client's certificate and its key, as PEM; None where it has none."""
    if not asked.certificate:
        return None
    return Path(asked.certificate).read_bytes(), Path(asked.key or asked.certificate).read_bytes()


def reason(error: Exception) -> str:
    """Why TLS failed, without OpenSSL's codes and file names."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}"
    text = re.sub(r"^\[[^\]]*\] ?| ?\(_?ssl\.c:\d+\)", "", str(error.args[-1] if error.args else error))
    return text or type(error).__name__


def _text(path: str, where: str) -> str:
    try:
        return Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise Problem(f"{where} = {path!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Problem(f"{where} = {path!r}: not PEM text") from None

"""Asks a running server what it is, over whatever its clients would use."""

from __future__ import annotations

import socket
import ssl

from models.problem import Problem
from serving import client, proxies, tls
from serving.client import Client, RequestFailed
from serving.engines import registry
from serving.engines.engine import Description, Question
from serving.target import Target

TIMEOUT_S = 10.0


def reach(target: Target, protocol: str, timeout_s: float = TIMEOUT_S) -> None:
    """Connect once, so that what is wrong with an address, a name, a certificate or a secret is said by its name.

    Raises `Problem`.
    """
    key = "grpc" if protocol == "grpc" else "url"
    where = f"target.{target.name}.{key}: {target.url(protocol)}"
    try:
        with client.connect(target, protocol, timeout_s) as reached:
            if way := proxies.way(target, protocol):
                proxies.check(reached, target, protocol, way)
            chosen = reached.selected_alpn_protocol() if isinstance(reached, ssl.SSLSocket) else None
    except ssl.SSLError as error:
        raise Problem(f"{where}: {tls.reason(error)}") from None
    except socket.gaierror as error:
        raise Problem(f"{where}: its name cannot be resolved ({error.strerror}){_past(target, protocol)}") from None
    except OSError as error:
        raise Problem(
            f"{where}: cannot be connected to ({error.strerror or error}); is the server up?{_past(target, protocol)}"
        ) from None
    wanted = "gRPC needs" if protocol == "grpc" else "http2 = true asks for" if target.http2 else ""
    if wanted and target.tls(protocol) and chosen != "h2":
        raise Problem(f"{where}: speaks no HTTP/2 over TLS (its ALPN chose {chosen or 'nothing'}), which {wanted}")


def _past(target: Target, protocol: str) -> str:
    """What to know of a server that is not reached, where others would go through a proxy."""
    host = target.address(protocol).rpartition(":")[0].strip("[]")
    name = proxies.variable(host, encrypted=target.tls(protocol) is not None)
    if not name or target.proxy:
        return ""
    how = "run Tandem where the server is reached without, or give the target proxy = 'environment'"
    return f"; {name} names a proxy, which is not used: {how}"


def describe(target: Target, protocol: str, timeout_s: float = TIMEOUT_S) -> Description | None:
    """What the server of ``target`` says of itself and its model; None where its engine cannot be asked.

    Raises `Problem` where it does not answer, or not what its engine would.
    """
    question = registry.engine(target.engine).metadata(target, protocol)
    if question is None:
        return None
    with Client(target, timeout_s) as asking:
        found = _ask(asking, question)
        for further in question.also:
            try:
                found = found.completed(_ask(asking, further))
            except Problem:
                continue
    return found


def _ask(asking: Client, question: Question) -> Description:
    target, over = asking.target, "rest" if question.message is None else "grpc"
    where = f"target.{target.name}: {target.url(over)}{question.path}"
    try:
        if question.message is None:
            return question.read(asking.get(question.path))
        return question.read(asking.call(question.path, question.message))
    except (RequestFailed, ValueError) as error:
        raise Problem(f"{where}: {_one_line(str(error))}") from None


def _one_line(text: str, longest: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[:longest]} …"

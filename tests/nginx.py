"""A real nginx in front of servers, as people put one there: TLS, a token, client certificates."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trustme

from serving import ports
from tests.components import require

TOKEN = "s3cret-t0ken"


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the tests' own. `file`: what clients trust."""

    folder: Path
    own: trustme.CA

    @property
    def file(self) -> Path:
        return self.folder / "ca.pem"

    def certificate(self, name: str, *hosts: str, expired: bool = False) -> Path:
        """A certificate and its key, in one file."""
        past = (datetime(2019, 1, 1), datetime(2020, 1, 1)) if expired else (None, None)
        issued = self.own.issue_cert(*hosts, not_before=past[0], not_after=past[1])
        path = self.folder / f"{name}.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path


def authority(folder: Path) -> Authority:
    """A new one, with its certificate in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Authority(folder, trustme.CA())
    made.own.cert_pem.write_to_path(str(made.file))
    return made


@dataclass(frozen=True)
class Front:
    """Where nginx listens: HTTP/1.1 and HTTP/2 over TLS on `rest`, gRPC over TLS on `grpc`."""

    rest: int
    grpc: int
    log: Path


@contextmanager
def front(
    folder: Path,
    certificate: Path,
    *,
    rest: str = "127.0.0.1:9",
    grpc: str = "127.0.0.1:9",
    token: str = "",
    clients: Path | None = None,
    also: Mapping[str, str] | None = None,
    above: str = "",
) -> Iterator[Front]:
    """nginx before a REST and a gRPC API; `token`: others get 401; `clients`: only those with a certificate of this
    authority; `also`: further directives of a server; `above`: further ones for all of them."""
    require("nginx")
    folder.mkdir(parents=True, exist_ok=True)
    rest_port, grpc_port = ports.free(2)
    checks = f'if ($http_authorization != "Bearer {token}") {{ return 401; }}' if token else ""
    if clients:
        checks += f"\n    ssl_client_certificate {clients}; ssl_verify_client on;"
    checks += "".join(f"\n    {key} {value};" for key, value in (also or {}).items())
    (folder / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log info;
events {{ worker_connections 1024; }}
http {{
  {above}
  access_log off; client_max_body_size 64m; keepalive_requests 1000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  ssl_certificate {certificate}; ssl_certificate_key {certificate};
  upstream rest {{ server {rest}; keepalive 64; }}
  upstream grpc {{ server {grpc}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{rest_port} ssl http2;
    {checks}
    location / {{ proxy_pass http://rest; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
  server {{
    listen 127.0.0.1:{grpc_port} ssl http2;
    {checks}
    location / {{ grpc_pass grpc://grpc; }}
  }}
}}
""")
    output = folder / "output.log"
    with output.open("wb") as out:
        command = ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 10
        while not all(ports.answers("127.0.0.1", port) for port in (rest_port, grpc_port)):
            assert process.poll() is None, output.read_text() + (folder / "error.log").read_text()
            assert time.monotonic() < deadline
        yield Front(rest_port, grpc_port, folder / "error.log")
    finally:
        process.terminate()
        process.wait()


def forwarding(port: int) -> str:
    """What goes `above` for nginx to be a forward proxy, too: for whole http:// URLs, at this port."""
    forward = "proxy_pass http://$http_host$request_uri; proxy_http_version 1.1;"
    return f"server {{ listen 127.0.0.1:{port}; location / {{ {forward} }} }}"

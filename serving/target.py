"""A running server as its clients see it."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from models.encoding import Encoding
from models.precision import Precision
from models.problem import Problem
from serving.engines.engine import Backend, Knob, Switch, Tensor

if TYPE_CHECKING:
    from models.bundle import Bundle

PROTOCOLS = ("grpc", "rest", "rest-binary")


class Caveat(enum.Enum):
    """What is not as it seems with the figures of a target.

    DOCKER_PROXY  its container is not asked at its own address: requests pass through Docker's proxy process
    KEPT_UP       somebody else keeps it up: it was not started anew between a run's blocks
    PROXY         it was reached through a proxy, as its user asked
    """

    DOCKER_PROXY = "docker-proxy"
    KEPT_UP = "kept-up"
    PROXY = "proxy"


class WhyStandIn(enum.Enum):
    """Why an engine's own program does not run, and what stands in for the engine does.

    ASKED           it was asked for
    MACHINE         the program is for another kind of machine
    C_LIBRARY       the machine has too old a C library for it, or another than glibc
    NO_ANSWER       the registry that has it cannot be reached, or sends too slowly
    REFUSED         the registry lets nobody in that it does not know
    NOT_FOUND       the registry does not have the image
    BUSY            the registry was asked too often
    FAILS           the registry fails
    DAMAGED         what came is not what its digest says
    NOT_UNDERSTOOD  what the registry says is not of the protocol
    NOT_IN_IMAGE    the image does not hold the program
    NO_SPACE        the disk is full
    NOT_WRITABLE    the cache cannot be written
    DOES_NOT_START  the program does not start here, or is another one
    """

    ASKED = "asked"
    MACHINE = "machine"
    C_LIBRARY = "c-library"
    NO_ANSWER = "no-answer"
    REFUSED = "refused"
    NOT_FOUND = "not-found"
    BUSY = "busy"
    FAILS = "fails"
    DAMAGED = "damaged"
    NOT_UNDERSTOOD = "not-understood"
    NOT_IN_IMAGE = "not-in-image"
    NO_SPACE = "no-space"
    NOT_WRITABLE = "not-writable"
    DOES_NOT_START = "does-not-start"


@dataclass(frozen=True)
class Tls:
    """What a TLS connection is checked by; paths of PEM files.

    ca           the authorities to trust; empty: the system's
    certificate  the client's own, with its chain, and its key unless that is in `key`; empty: the client has none
    server_name  what the server's certificate must be for; empty: the host of its address
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""


@dataclass(frozen=True)
class SecretHeader:
    """A header whose value is read where it is used, and is in no file of a run: it is in the environment variable
    `env`, or in `file`; `prefix` stands before it ("Bearer ")."""

    name: str
    env: str = ""
    file: str = ""
    prefix: str = ""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy that a target is reached through.

    url    "http://host:port"; or `serving.proxies.ENVIRONMENT`: the one that the environment names where it is asked
    login  where "user:password" for it is; None: it wants none, or the environment says so itself
    """

    url: str
    login: SecretHeader | None = None


@dataclass(frozen=True)
class HttpRequest:
    """How a server of no protocol that Tandem knows is asked, over HTTP; what is wrong says `http_request.check`.

    method        "POST"; path: with its query, below the target's `base_path`
    body          text with placeholders for the samples, see `http_request.Template`; empty: their bytes
    content_type  of the body; empty: JSON, or where the body holds bytes application/octet-stream
    answer        where in a JSON answer its values are, as a JSON Pointer: "/outputs/0/data"; empty: all of it
    good          the statuses of an answer that is none of an error
    """

    method: str = "POST"
    path: str = "/"
    body: str = ""
    content_type: str = ""
    answer: str = ""
    good: tuple[int, ...] = (200,)


@dataclass(frozen=True)
class Target:
    """Everything that a client, the load generator and the report need to know of one running server, asked for one
    of the models that it holds.

    name            what the experiment calls it
    engine          the id of the engine that really answers: it may stand in for another
    engine_version  version of that engine, with the runtime's version where they differ
    runtime         "process", "container", "kubernetes" or "remote"
    model, version  the servable's name and version
    input_shape     (H, W, C) of one uint8 image; of another model, one sample without the batch; empty: not known
    classes         number of class probabilities in an answer; 0: not known
    grpc            "host:port" of the gRPC inference API
    rest            "host:port" of the HTTP inference API
    metrics         URL of the Prometheus page, or None; `metrics_tls`: what a connection to it is checked by
    cores           CPUs the server is pinned to; empty: not pinned
    knobs           what it was given, the profile's first
    switches        of its numerical libraries, as they were in force when it was started
    backend         what computes behind it, where it has several ways to
    max_batch_size  images that it takes in one request
    precision       what its model computes in
    encoding        what requests carry of an image
    caveats         what is not as it seems
    inputs, outputs what the model takes and gives; empty: a bundle's own interface, `images` and `probabilities`
    input_shapes    of one sample, by input, where there are several and the user says
    output          the output that counts, where the user says
    pinned_version  the version that requests ask for; empty: the server's choice
    base_path       what stands before every path of its HTTP API, such as "/models"
    rest_tls        its HTTP API is reached over TLS; grpc_tls: its gRPC API is
    http2           load over REST goes over HTTP/2
    headers         sent with every request, beside those of its content; `secret_headers`: likewise
    request         how it is asked, where its engine does not say
    proxy           what connections to it, and to its Prometheus page, go through
    is_endpoint     it was up before, at an address that the user gave
    machine         what tells the machine that its processes are on from others (see `this_machine`); empty: not known
    process         the number there of the process that all of its others descend from; 0: not known
    log             the path there of its log; empty: not known
    instance        what tells it from a server in its place: its pod's UID, its container's id, or the start of its
                    process; empty: not known
    """

    name: str
    engine: str
    engine_version: str
    runtime: str
    model: str
    version: int
    input_shape: tuple[int, ...]
    classes: int
    grpc: str
    rest: str
    metrics: str | None = None
    cores: tuple[int, ...] = ()
    knobs: tuple[Knob, ...] = ()
    switches: tuple[Switch, ...] = ()
    backend: Backend | None = None
    max_batch_size: int = 32
    precision: Precision = Precision.FP32
    encoding: Encoding = Encoding.NONE
    caveats: tuple[Caveat, ...] = ()
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    output: str = ""
    pinned_version: str = ""
    base_path: str = ""
    rest_tls: Tls | None = None
    grpc_tls: Tls | None = None
    http2: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    secret_headers: tuple[SecretHeader, ...] = ()
    request: HttpRequest | None = None
    metrics_tls: Tls | None = None
    proxy: Proxy | None = None
    is_endpoint: bool = False
    machine: str = ""
    process: int = 0
    log: str = ""
    instance: str = ""

    @property
    def tolerance(self) -> float:
        """The largest |Δp| between its answers and eager PyTorch's."""
        return self.encoding.tolerance(self.precision)

    def address(self, protocol: str) -> str:
        """ "host:port" of the API that speaks a protocol."""
        return self.grpc if protocol == "grpc" else self.rest

    def tls(self, protocol: str) -> Tls | None:
        """What connections for a protocol are checked by; None: they are not encrypted."""
        return self.grpc_tls if protocol == "grpc" else self.rest_tls

    def url(self, protocol: str) -> str:
        """Its address over a protocol, as people write it."""
        if protocol == "grpc":
            return f"grpcs://{self.grpc}" if self.grpc_tls else f"grpc://{self.grpc}"
        return f"http{'s' if self.rest_tls else ''}://{self.rest}{self.base_path}"

    def asked_for(self, bundle: Bundle) -> Target:
        """The same server, asked for another of its models."""
        return replace(
            self,
            model=bundle.model,
            version=bundle.version,
            input_shape=bundle.input_shape,
            classes=bundle.classes,
            encoding=bundle.encoding,
        )

    def to_dict(self) -> dict[str, Any]:
        """The target as plain values, for JSON."""
        return dict(msgspec.to_builtins(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Target:
        """The inverse of `to_dict`; raises ValueError that names the key at fault."""
        return msgspec.convert(values, cls)

    def save(self, path: Path) -> None:
        """Write the target as JSON."""
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Target:
        """Read what `save` wrote; raises `Problem`."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, ValueError) as error:
            raise Problem(f"{path}: no target ({error}); start it again") from None

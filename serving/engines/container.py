"""What an engine's folder says of its server in a container of ours, and in a Deployment on Kubernetes.

Imports the standard library only: a container's entrypoint and health check read it beside a server that is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.engines.engine import Launch, Ports, Site

if TYPE_CHECKING:
    from models.bundle import Bundle
    from serving.profile import ServingProfile


@dataclass(frozen=True)
class Inside:
    """A container as its entrypoint finds it.

    configuration  the folder of the rendered files
    models         the folder of the models
    scratch        the folder that may be written, with a short path
    arguments      the rendered command line's flags
    program        the server's own program, where it is not the image's
    """

    configuration: Path
    models: Path
    scratch: Path
    arguments: Sequence[str] = ()
    program: Path | None = None


@dataclass(frozen=True)
class PublishedPort:
    """A port of the container that is published on this host's loopback.

    port      inside the container, and outside unless the environment has another in ``variable``
    variable  the name that docker/compose.yaml gives it
    purpose   what people find there: "TorchServe's REST API"
    """

    port: int
    variable: str
    purpose: str


@dataclass(frozen=True)
class Readiness:
    """How a health check, inside the container, asks whether the model is served.

    port, path  of one GET on loopback; the path may hold {model}
    states      the answer's JSON → the state of each worker or version. KeyError, IndexError or TypeError where it is
                another answer
    ready       whether these states mean that the model is served
    """

    port: int
    path: str
    states: Callable[[Any], list[str]]
    ready: Callable[[Sequence[str]], bool]


@dataclass(frozen=True)
class Container:
    """An engine's server in a container: what its image holds, and how it is started, asked and stopped.

    image         name below tandem/; also of docker/<image>.Dockerfile, of the service in docker/compose.yaml and of
                  the folder of its rendered configuration
    packages      whether the image installs Python packages (docker/requirements/<image>.lock)
    base          a base image beside Python's: the build's argument, and its name in docker/base-images.env; or empty
    gpu_base      that of the GPU variant, under the same argument
    gpu           whether it computes on a GPU; such an image has a variant, tagged -gpu
    ports         where the server listens inside
    published     those that this host is given
    part          the bundle's folder that goes into the image; the entrypoint compares it with the manifest
    model_folder  where that folder lies below the models'; may hold {model}
    model_version the version that the bundle's files in `part` give the model
    command       the server's command line. Raises `Problem` where it is not installed
    environment   variables that it needs there, beside the rendered ones
    readiness     when it is healthy
    refuse_s      before it is stopped, new requests are refused for so many seconds (see TANDEM_REFUSING): for a server
                  that does not wait for answers under way
    optional      whether it runs only where an experiment names it, and not in a stack of everything
    everywhere    whether the server listens on every address of its host, whatever `Site.host` says
    outside       how it starts as a process, with its files in the site's folder, where its program outside the image
                  computes with something else; None: as inside, by `command`. Raises `Problem`
    identify      asks the server's own program what it is, inside, and gives the version that it says, with the
                  runtime's where they differ. Raises `Problem` where it is something else. None: it is of our packages
    version       the same as far as it is known outside, given the tag of the base image (empty: none)
    """

    image: str
    ports: Ports
    published: tuple[PublishedPort, ...]
    part: str
    model_folder: str
    command: Callable[[Inside], Sequence[str]]
    readiness: Readiness
    version: Callable[[str], str]
    packages: bool = True
    base: str = ""
    gpu_base: str = ""
    gpu: bool = True
    environment: Callable[[Inside], Mapping[str, str]] = lambda _: {}
    model_version: Callable[[Bundle], str] = lambda bundle: str(bundle.version)
    identify: Callable[[Inside], str] | None = None
    refuse_s: float = 0.0
    everywhere: bool = False
    optional: bool = False
    outside: Callable[[Bundle, ServingProfile, Site, Path | None], Launch] | None = None

    def model_path(self, models: Path, model: str) -> Path:
        """The folder of the files of ``model``, below the folder of the models."""
        return models / self.model_folder.format(model=model)


def instances(image: str, _: tuple[int, int, int]) -> str:
    """A prediction's body as TorchServe's handler and TensorFlow Serving take it: rows of images."""
    return f'{{"instances":[{image}]}}\n'


@dataclass(frozen=True)
class Deployment:
    """An engine's server on Kubernetes.

    name       of its Deployment, its headless Service, its folder in k8s/base and, below tandem/, of the image that the
               manifests there name (a stand-in has those of the engine in whose place it runs)
    predict    the path of the prediction that the probes send; holds {model} and {version}
    health     the path that answers 200 while the server lives; may hold them
    body       of that prediction: one image as JSON in lines, and its shape (H, W, C) → JSON
    component  the folder of k8s/components that brings it; empty: it is in every overlay
    """

    name: str
    predict: str
    health: str
    body: Callable[[str, tuple[int, int, int]], str] = instances
    component: str = ""

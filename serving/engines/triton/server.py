"""Starts the tritonserver of PyPI's nvidia-pytriton, which has the Python backend alone.

What it takes: its libraries on LD_LIBRARY_PATH; a folder of backends that holds the Python backend's files with the
stub of this Python; a model repository. pytriton itself is not used.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING

from models.problem import Problem
from serving import ports as tcp
from serving.engines.engine import Engine, Launch, Ports, Served, Site
from serving.engines.triton import rendering
from serving.engines.triton.backends import Library
from serving.ports import LOOPBACK
from serving.profile import ServingProfile

if TYPE_CHECKING:
    from models.bundle import Bundle

# The wheel says its own version alone. Each carries one Triton.
CARRIES = {"0.7.0": "2.51.0"}
MODEL = Path(__file__).with_name("python_model.py")
STUB_TIMEOUT_S = 90  # importing torch takes a while on a busy machine
SHARED_MEMORY = Path("/dev/shm")


def version(engine: Engine, library: Library, program: Path | None) -> str:
    """Triton's version, and that of the library behind it. Raises `Problem` where it cannot run here."""
    home = _home(engine, program)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not (home / "python_backend_stubs" / python).is_dir():
        raise Problem(f"{home}: Triton's Python backend is not for Python {python}: use Python 3.11")
    _require_libpython()
    wheel = next(home.parents[1].glob("nvidia_pytriton-*.dist-info"), None)
    own = wheel.name.removesuffix(".dist-info").partition("-")[2] if wheel else ""
    return f"{CARRIES.get(own, 'unknown')} (Python backend, {library.package} {package_version(library.package)})"


def launch(
    engine: Engine,
    library: Library,
    bundles: Sequence[Bundle],
    profile: ServingProfile,
    folder: Path,
    *,
    ports: Ports,
    cores: Sequence[int],
    program: Path | None,
) -> Launch:
    """Triton with the Python backend around ``library``; see `Engine.launch`."""
    if profile.device != "cpu":
        raise Problem(
            f"profile.device = {profile.device!r}: {engine.title}'s server of the wheel computes on the CPU alone"
        )
    rest, grpc, metrics = tcp.choose(
        [
            (ports.rest, f"{engine.title}'s REST API"),
            (ports.grpc, f"{engine.title}'s gRPC API"),
            (ports.metrics, f"{engine.title}'s metrics"),
        ]
    )
    site = Site(
        host=LOOPBACK,
        ports=Ports(rest=rest, grpc=grpc, metrics=metrics),
        configuration=str(folder.resolve()),
        models="",
        cores=len(cores) or len(os.sched_getaffinity(0)),
    )
    return launch_at(engine, library, bundles, profile, site, program)


def launch_at(
    engine: Engine,
    library: Library,
    bundles: Sequence[Bundle],
    profile: ServingProfile,
    site: Site,
    program: Path | None,
) -> Launch:
    """The same, with its files in ``site.configuration``, at an address and ports that are known to be free."""
    said, home = version(engine, library, program), _home(engine, program)
    folder = Path(site.configuration)
    served = [
        Served(one.model, str(one.version), str(library.of(one).resolve()), one.input_shape, one.classes)
        for one in bundles
    ]
    rendered = rendering.render(library, library.python, profile, served, site)
    rendered.write(folder)
    # Gone when it is released, and at the end of this process at the latest.
    made = tempfile.TemporaryDirectory(prefix="tandem-", ignore_cleanup_errors=True)
    scratch, release = Path(made.name), partial(_release, made)
    try:
        _backends(home, scratch / "backends")
        _repository(served, folder, scratch / "models")
    except BaseException:
        release()
        raise
    backend = {"stub-timeout-seconds": STUB_TIMEOUT_S, "shm-region-prefix-name": scratch.name}
    return Launch(
        command=[
            str(home / "bin" / "tritonserver"),
            f"--model-repository={scratch / 'models'}",
            f"--backend-directory={scratch / 'backends'}",
            *(f"--backend-config=python,{key}={value}" for key, value in backend.items()),
            *rendered.arguments,
        ],
        environment={**rendered.environment, **environment(home / "bin" / "tritonserver")},
        ports=site.ports,
        version=said,
        rendering=rendered,
        ready=lambda log: (
            "Started HTTPService" in log
        ),  # it listens when every model is loaded, and exits where one fails
        release=release,
    )


def _home(engine: Engine, program: Path | None) -> Path:
    """The folder of the server in the unpacked wheel. Raises `Problem`."""
    if program is None:
        raise Problem(f"{engine.title} is not installed here: make triton fetches it")
    return program.parents[1]


def _require_libpython() -> None:
    """The stub is an interpreter of its own, around this Python's library."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    for candidate in (Path(sysconfig.get_config_var("LIBDIR") or "") / name, Path(name)):
        try:
            ctypes.CDLL(str(candidate))
        except OSError:
            continue
        return
    raise Problem(f"{name} is not here, which Triton's Python backend needs: apt-get install libpython3.11")


def _backends(home: Path, folder: Path) -> None:
    """A folder of backends with the Python backend alone: its files in one place, with this Python's stub."""
    own = folder / "python"
    own.mkdir(parents=True)
    stub = home / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    for file in [*(home / "backends" / "python").iterdir(), stub / "triton_python_backend_stub"]:
        target = own / file.name
        target.unlink(missing_ok=True)  # a stub of another Python
        target.symlink_to(file)


def _repository(models: Sequence[Served], configuration: Path, folder: Path) -> None:
    """A model repository: of each model its rendered configuration, and for its version the Python backend's model."""
    for one in models:
        version = folder / one.name / one.version
        version.mkdir(parents=True)
        (folder / one.name / "config.pbtxt").symlink_to(configuration / rendering.file_of(one.name))
        shutil.copy(MODEL, version / "model.py")


def environment(program: Path) -> dict[str, str]:
    """Where the server finds its libraries, and the stub this Python's library and packages."""
    home = program.parents[1]
    libraries = [home.parents[1] / "nvidia_pytriton.libs", home / "external_libs", sysconfig.get_config_var("LIBDIR")]
    paths = [*map(str, filter(None, libraries)), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    packages = dict.fromkeys(sysconfig.get_path(which) for which in ("purelib", "platlib"))
    return {"LD_LIBRARY_PATH": os.pathsep.join(paths), "TANDEM_PACKAGES": os.pathsep.join(packages)}


def _release(scratch: tempfile.TemporaryDirectory[str]) -> None:
    """Remove the scratch folder, and what a killed server leaves in shared memory."""
    scratch.cleanup()
    for left in SHARED_MEMORY.glob(f"{Path(scratch.name).name}*"):
        left.unlink(missing_ok=True)

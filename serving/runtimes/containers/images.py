"""Builds our images: one bundle's model, baked in. An image is immutable; its tag is the bundle's version."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models import child_environment
from serving.engines import kernels, registry
from serving.engines.engine import Engine, Rendering
from serving.profile import ServingProfile
from serving.runtimes.containers import base_images, configuration, docker_cli, servers, wheels

if TYPE_CHECKING:
    from models.bundle import Bundle

ROOT = Path(__file__).resolve().parents[3]
AT_ONCE = 2  # builds
# Of the models' room, what the others may use.
MODULES = (
    "__init__",
    "bundle",
    "child_environment",
    "declaration",
    "encoding",
    "in_use",
    "precision",
    "problem",
    "whole_file",
)
MODELS = tuple(f"models/{name}.py" for name in MODULES)
STAND_IN = "make up ARGS=--embedded (make images ARGS=--embedded) runs {title} in its place"
OTHER_BASE = "give the engine access to the registry, or have the image under that name (docs/containers.md)"


@dataclass(frozen=True)
class Image:
    """One of our images: its name below `tandem/`, what its build reads beside the Dockerfile, and of the bundle.

    engine  whose server runs in it; None: the load generator
    """

    name: str
    sources: tuple[str, ...]
    parts: tuple[str, ...]
    packages: bool = True
    engine: Engine | None = None

    @property
    def dockerfile(self) -> str:
        """The Dockerfile's path in the repository."""
        return f"docker/{self.name}.Dockerfile"

    @property
    def gpu(self) -> bool:
        """Whether it has a GPU variant."""
        return self.engine is not None and servers.container_of(self.engine).gpu

    def bases(self, *, gpu: bool) -> dict[str, str]:
        """The base images beside Python's: build argument to name in docker/base-images.env."""
        container = self.engine.container if self.engine else None
        if container is None or not container.base:
            return {}
        return {container.base: container.gpu_base if gpu else container.base}


LOADTEST = Image("loadtest", (*MODELS, "serving", "loadtest", "experiments"), ("manifest.json", "reference.npz"))


def of(engine: Engine) -> Image:
    """An engine's image; raises `Problem` where it has none."""
    container = servers.container_of(engine)
    return Image(
        container.image, (*MODELS, "serving"), ("manifest.json", container.part), container.packages, engine=engine
    )


def known() -> tuple[Image, ...]:
    """All our images."""
    return (*map(of, servers.engines()), LOADTEST)


@dataclass(frozen=True)
class Build:
    """How to build: for GPUs or not, PyTorch's build, bases by digest or by tag alone, and the prefix of our names."""

    gpu: bool = False
    torch: str = "cpu"
    digests: bool = True
    registry: str = ""

    def tag(self, image: Image, version: int) -> str:
        """An image's full name for a bundle's version."""
        suffix = "-gpu" if self.gpu and image.gpu else ""
        return f"{self.registry}tandem/{image.name}:{version}{suffix}"


def chosen(*, embedded: bool) -> tuple[Image, ...]:
    """The images of a whole stack: of its servers (``embedded``, of what stands in for one), and the load generator."""
    return (*map(of, servers.by_target(embedded=embedded).values()), LOADTEST)


def build(bundle: Bundle, images: Iterable[Image], how: Build, artifacts: Path) -> list[str]:
    """Build ``images`` for ``bundle`` and return their names; ``artifacts`` receives their configuration and the logs.

    Raises `Problem` where a base image or a package cannot be had, or the build fails.
    """
    docker_cli.require_engine()
    folder = artifacts / "containers"
    images = tuple(images)
    for image in images:  # here, where their order is always the same
        print(f"building {how.tag(image, bundle.version)} (log: {_log(image, folder)})", file=sys.stderr, flush=True)
    # Unpacking torch and tensorflow keeps one core busy each.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda image: _build(bundle, image, how, folder), images))


def sizes(names: Sequence[str]) -> str:
    """A table of images and their sizes in MB (of 10^6 bytes, as docker counts)."""
    rows = [(name, int(docker_cli.docker("image", "inspect", "--format", "{{.Size}}", name).stdout)) for name in names]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {size / 1e6:7,.0f} MB" for name, size in rows)


def _build(bundle: Bundle, image: Image, how: Build, folder: Path) -> str:
    name = how.tag(image, bundle.version)
    if image.packages:
        wheels.fetch(image.name, how.torch)
    config = folder / f"{bundle.model}-{bundle.version}"
    if image.engine:
        render(
            bundle,
            image.engine,
            ServingProfile(device="gpu" if how.gpu else "cpu", precision=bundle.precision),
            config,
            cores=4,
        )
    bases = base_images.variables(digests=how.digests)
    arguments = {
        "PYTHON": base_images.reference("PYTHON", bases),
        **{argument: base_images.reference(base, bases) for argument, base in image.bases(gpu=how.gpu).items()},
        "TORCH": how.torch,
        "BUNDLE": "bundle",
        "CONFIG": "config",
        "PIP_NO_INDEX": "1",
        "SOURCE": _git("config", "--get", "remote.origin.url"),
        "REVISION": _git("rev-parse", "HEAD"),
        "MODEL": bundle.model,
        "VERSION": str(bundle.version),
        "DIGEST": bundle.digest,
    }
    used = _arguments_of(ROOT / image.dockerfile)
    command = [docker_cli.program(), "build", "--file", image.dockerfile, "--tag", name]
    for key, value in arguments.items():
        if key in used:
            command += ["--build-arg", f"{key}={value}"]
    log = _log(image, folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    if _stream([*command, "-"], _context(image, bundle, config), log):
        raise docker_cli.explain(f"building {name}", log.read_text("utf-8", "replace"), pulling=_without_base(image))
    return name


def _without_base(image: Image) -> str:
    """What to do where a base image cannot be pulled."""
    stand_in = registry.stand_in(image.engine) if image.engine else None
    return STAND_IN.format(title=stand_in.title) if stand_in and stand_in.container else OTHER_BASE


def _log(image: Image, folder: Path) -> Path:
    return folder / f"{image.name}-build.log"


def render(bundle: Bundle, engine: Engine, profile: ServingProfile, folder: Path, *, cores: int) -> Rendering:
    """Write what ``engine``'s container reads in /config, for ``bundle`` and ``profile``, below ``folder``. Raises
    `Problem` where they do not fit together."""
    profile.require(bundle)
    kernels.require(engine, bundle, profile)
    container = servers.container_of(engine)
    version = container.model_version(bundle)
    rendering = configuration.render(
        engine,
        profile,
        model=bundle.model,
        version=version,
        cores=cores,
        shape=bundle.input_shape,
        classes=bundle.classes,
    )
    configuration.write(rendering, folder / container.image)
    return rendering


def _stream(command: Sequence[str], files: Mapping[str, Path], log: Path) -> int:
    """Run docker build with these files (name in the context to path here) as a tar stream on its standard input;
    what it prints goes to ``log`` at once. Returns its exit status."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=child_environment.tool(),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        assert process.stdin
        try:
            with tarfile.open(fileobj=process.stdin, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for name, path in sorted(files.items()):
                    _add(tar, name, path)
            process.stdin.close()
        except BrokenPipeError:
            pass  # docker has given up; its output says why
    return process.returncode


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    """Add a file with fixed owner, mode and time, so that equal contents give equal layers."""
    entry = tar.gettarinfo(path, name)
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    with path.open("rb") as file:
        tar.addfile(entry, file)


def _context(image: Image, bundle: Bundle, config: Path) -> dict[str, Path]:
    """The build's files: what this image needs of the repository and the bundle, and nothing else."""
    files = {image.dockerfile: ROOT / image.dockerfile}
    for source in image.sources:
        files.update(_below(ROOT / source, source))
    if image.packages:
        lock = f"docker/requirements/{image.name}.lock"
        files[lock] = ROOT / lock
        files.update(_below(ROOT / "docker" / "wheels" / image.name, f"docker/wheels/{image.name}"))
    if image.engine:
        files.update(_below(config / image.name, f"config/{image.name}"))
    for part in image.parts:
        files.update(_below(bundle.folder / part, f"bundle/{part}"))
    return files


def _below(path: Path, name: str) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield name, path
    for file in path.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield f"{name}/{file.relative_to(path).as_posix()}", file


def _arguments_of(dockerfile: Path) -> set[str]:
    """The build arguments that a Dockerfile declares."""
    lines = dockerfile.read_text().splitlines()
    return {line.split()[1].partition("=")[0] for line in lines if line.startswith("ARG ")}


def _git(*arguments: str) -> str:
    """Git's answer, or nothing where this is no checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            env=child_environment.tool(),
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip()

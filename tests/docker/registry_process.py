"""A real registry (Debian's docker-registry), and images pushed to it by hand."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from serving import ports
from tests.components import require

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
USER, PASSWORD = "team", "secret"
HTPASSWD = "team:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"  # of that password


@contextmanager
def registry_running(folder: Path, **more: Any) -> Iterator[str]:
    """A registry on a free loopback port, for the length of a ``with`` block; yields its "host:port"."""
    require("docker-registry")
    host = f"{ports.LOOPBACK}:{ports.free(1)[0]}"
    storage = {"filesystem": {"rootdirectory": str(folder / "storage")}}
    config = {"version": 0.1, "log": {"level": "warn"}, "storage": storage, "http": {"addr": host}, **more}
    (folder / "registry.yml").write_text(yaml.safe_dump(config))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", folder / "registry.yml"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not ports.answers(*host.split(":")):  # type: ignore[arg-type]
            assert process.poll() is None, (folder / "registry.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield host
    finally:
        process.terminate()
        process.wait(30)


def blob_on_disk(folder: Path, digest: str) -> Path:
    """The file in which the registry of ``folder`` keeps a blob."""
    hexadecimal = digest.removeprefix("sha256:")
    return folder / "storage/docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"


@dataclass(frozen=True)
class Made:
    """A layer to push: its files (absolute path to content), its line in the Dockerfile, how it is compressed."""

    files: Mapping[str, bytes]
    created_by: str = ""
    compress: Callable[[bytes], bytes] = gzip.compress
    media_type: str = LAYER


@dataclass(frozen=True)
class Pushed:
    """Digests of an image in a registry: of its index, of its manifest by platform, of its layers, the lowest first."""

    index: str
    manifests: Mapping[str, str]
    layers: tuple[str, ...]


def tar(files: Mapping[str, bytes]) -> bytes:
    """A layer's archive; every file is executable."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def push(
    host: str,
    name: str,
    layers: Sequence[Made],
    *,
    platforms: Sequence[str] = ("linux/arm64", "linux/amd64"),
    history: bool = True,
) -> Pushed:
    """Push an image called ``name`` ("repository:tag"), as an index with a manifest for each platform, as builders do.

    history  whether its configurations say how the layers were made
    """
    repository, _, tag = name.rpartition(":")
    at = f"http://{host}/v2/{repository}"
    described = [{**_blob(at, one.compress(tar(one.files))), "mediaType": one.media_type} for one in layers]
    steps: list[dict[str, Any]] = [{"created_by": one.created_by} for one in layers]
    steps.insert(1, {"created_by": "ENV MODEL_NAME=model", "empty_layer": True})
    entries = []
    for platform in platforms:
        system, _, architecture = platform.partition("/")
        config = {"os": system, "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []}}
        kept = json.dumps({**config, "history": steps} if history else config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {**_blob(at, kept), "mediaType": CONFIG},
            "layers": described,
        }
        runs_on = {"os": system, "architecture": architecture}
        entries.append({**_manifest(at, None, manifest), "mediaType": MANIFEST, "platform": runs_on})
    index = _manifest(at, tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    manifests = dict(zip(platforms, (one["digest"] for one in entries), strict=True))
    return Pushed(index["digest"], manifests, tuple(one["digest"] for one in described))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(at: str, content: bytes) -> dict[str, Any]:
    begun = requests.post(f"{at}/blobs/uploads/", timeout=30)
    begun.raise_for_status()
    digest = _digest(content)
    put = requests.put(begun.headers["Location"], params={"digest": digest}, data=content, timeout=30)
    put.raise_for_status()
    return {"digest": digest, "size": len(content)}


def _manifest(at: str, tag: str | None, document: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps(document).encode()
    digest = _digest(content)
    headers = {"Content-Type": document["mediaType"]}
    requests.put(f"{at}/manifests/{tag or digest}", data=content, headers=headers, timeout=30).raise_for_status()
    return {"digest": digest, "size": len(content)}

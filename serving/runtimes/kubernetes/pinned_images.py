"""Other people's images on Kubernetes by digest: a component, rendered from docker/base-images.env."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from serving.runtimes.containers import base_images
from serving.runtimes.containers.image_reference import ImageReference

K8S = Path(__file__).resolve().parents[3] / "k8s"
FILE = K8S / "components" / "pinned-images" / "kustomization.yaml"
HEAD = """\
# Other people's images by digest, where docker/base-images.env has one. Leave it out where nodes have the images from
# elsewhere than their registry: a digest is only known to that.
# Rendered by `make manifests`; changes here are lost. `make pin-images` brings the digests up to date.
"""


def checked_in() -> dict[Path, bytes]:
    """The component's file."""
    component = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "images": [{"name": name, "digest": digest} for name, digest in sorted(_pinned())],
    }
    return {FILE: (HEAD + yaml.safe_dump(component, sort_keys=False, width=120)).encode()}


def _pinned() -> Iterator[tuple[str, str]]:
    """Each image that the manifests name under a name of its own, and its digest, where that is known."""
    known = base_images.variables()
    digests = {
        ImageReference.parse(image): known[f"{key.removesuffix('_IMAGE')}_DIGEST"].removeprefix("@")
        for key, image in known.items()
        if key.endswith("_IMAGE")
    }
    for path in sorted(K8S.rglob("kustomization.yaml")):
        for image in yaml.safe_load(path.read_text()).get("images", ()):
            if path != FILE and "newName" in image:
                digest = digests.get(ImageReference.parse(f"{image['newName']}:{image['newTag']}"))
                if digest:
                    yield image["newName"], digest

"""Brings the digests of docker/base-images.env up to date, and finds tags that do not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models import whole_file
from models.problem import Problem
from serving.runtimes.containers import base_images, oci
from serving.runtimes.containers.image_reference import MIRROR, ImageReference

PLATFORM = oci.Platform("linux", "amd64")
"""What all base images must be there for."""


@dataclass(frozen=True)
class Pin:
    """What a registry says of a tag today.

    image   with its tag
    digest  what that points to; empty where there is no such tag, or none for `PLATFORM`
    before  the digest that the file has; empty where it has none
    """

    image: str
    digest: str
    before: str


def pin(file: Path) -> Iterator[Pin]:
    """Ask the registry of every tag in ``file`` what it points to, one after the other, and write all down at the end.

    The line of a tag that does not exist stays as it is. Raises `Problem` where a registry does not answer; then
    nothing is written.
    """
    known = base_images.variables(file=file)
    text = file.read_text("utf-8-sig")
    for key, image in known.items():
        name, _, kind = key.rpartition("_")
        if kind == "IMAGE":
            found = Pin(image, _digest(image), known[f"{name}_DIGEST"].removeprefix("@"))
            if found.digest:
                text = re.sub(rf"^{name}_DIGEST=.*$", f"{name}_DIGEST=@{found.digest}", text, flags=re.MULTILINE)
            yield found
    whole_file.write_text(file, text)


def _digest(image: str) -> str:
    try:
        with oci.Repository(ImageReference.parse(image), oci.Patience()) as repository:
            return repository.digest(PLATFORM)
    except oci.RegistryFault as fault:
        if fault.why is oci.Fault.NOT_FOUND:
            return ""
        raise Problem(
            f"{image}: its registry does not say what the tag points to ({fault.detail}); nothing was changed. "
            f"HTTPS_PROXY and {MIRROR}=[http://]HOST[:PORT] show another way to it"
        ) from None

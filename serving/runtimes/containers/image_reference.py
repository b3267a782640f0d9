"""Images' names, and where a registry answers for them."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from models.problem import Problem

DOCKER_HUB = "docker.io"
HUB_API = "https://registry-1.docker.io"
MIRROR = "REGISTRY_MIRROR"
"""The environment variable that names a registry to be asked in Docker Hub's place."""

# https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")


@dataclass(frozen=True)
class ImageReference:
    """What ``docker pull`` is given: "prom/prometheus:v3.13.0", with a registry's host before it or Docker Hub's left
    out, with a digest behind it or not.

    registry    the registry's "host" or "host:port"
    repository  the image's name there
    tag         empty where there is none
    digest      "sha256:…", or empty: whatever the tag points to
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Read a name by Docker's rules (https://docs.docker.com/reference/cli/docker/image/tag/). Raises `Problem`."""
        name, _, digest = text.partition("@")
        before, slash, last = name.rpartition("/")  # a colon before it is that of a port
        last, _, tag = last.partition(":")
        path = f"{before}{slash}{last}"
        first, slash, rest = path.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            registry, repository = first, rest
        else:
            registry, repository = DOCKER_HUB, path
        if registry == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        whole = _HOST.fullmatch(registry) and _REPOSITORY.fullmatch(repository)
        if not whole or (tag and not _TAG.fullmatch(tag)) or (digest and not _DIGEST.fullmatch(digest)):
            raise Problem(f"image {text!r}: use [HOST/]NAME:TAG, or with @sha256:… behind it")
        return cls(registry, repository, tag, digest)

    @property
    def version(self) -> str:
        """By which a registry knows it: the digest, where there is one, else the tag."""
        return self.digest or self.tag or "latest"

    @property
    def api(self) -> str:
        """The address of its repository in its registry's API: https, but for a registry on this machine.

        Docker Hub's images come from the mirror that `MIRROR` names, if it does: [http://]HOST[:PORT][/PREFIX]. Raises
        `Problem` where that is no such address.
        """
        host = f"{_scheme(self.registry)}://{self.registry}"
        prefix = ""
        if self.registry == DOCKER_HUB:
            host, prefix = _mirror(os.environ.get(MIRROR, ""))
        return f"{host}/v2/{prefix}{self.repository}"


def _mirror(text: str) -> tuple[str, str]:
    """A mirror's root, and what stands before an image's name there: empty, or with a slash at its end."""
    if not text:
        return HUB_API, ""
    scheme, there, rest = text.rpartition("://")
    host, _, prefix = rest.strip("/").partition("/")
    known = scheme in ("", "http", "https") and _HOST.fullmatch(host)
    if not known or (prefix and not _REPOSITORY.fullmatch(prefix)):
        raise Problem(f"{MIRROR}={text}: use [http://]HOST[:PORT][/PREFIX], such as {MIRROR}=mirror.example.com")
    return f"{scheme if there else _scheme(host)}://{host}", f"{prefix}/" if prefix else ""


def _scheme(host: str) -> str:
    """Plain HTTP for what cannot be overheard, as Docker has it."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        here = ipaddress.ip_address(name).is_loopback
    except ValueError:
        here = name == "localhost"
    return "http" if here else "https"

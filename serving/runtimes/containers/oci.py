"""Reads images from registries over the OCI distribution protocol; no container engine is needed.

Pulling: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pull, tokens:
https://distribution.github.io/distribution/spec/auth/token/, manifests: https://github.com/opencontainers/image-spec.
Proxies and certificates are as `requests` finds them (HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE).
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import msgspec
import requests
import urllib3

from serving.runtimes.containers.image_reference import DOCKER_HUB, ImageReference

PATIENCE_S = 8.0
CHUNK = 65_536
"""So many bytes in all its patience are news; a server that is slower does not answer."""
MOST_BYTES = 4 * 2**20  # of a manifest, as https://github.com/opencontainers/distribution-spec has it, and of a config
FIRST_PAUSE_S = 0.25
RESTARTS = 2
"""A blob is begun anew so often where the registry cannot go on with it, or what an earlier attempt left is damaged."""

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_HUB_LOGIN = "https://index.docker.io/v1/"  # under which `docker login` keeps it


class Fault(enum.Enum):
    """Why a registry does not give what it was asked for.

    NO_ANSWER       it cannot be reached, or says too little for too long
    REFUSED         it wants to know who asks, or does not let them in
    NOT_FOUND       it has no such image or blob, or not for this platform
    BUSY            it was asked too often (429)
    FAILS           an error of its own (5xx)
    DAMAGED         what it gave is not what its digest says
    NOT_UNDERSTOOD  an answer that is not of the protocol
    """

    NO_ANSWER = "no-answer"
    REFUSED = "refused"
    NOT_FOUND = "not-found"
    BUSY = "busy"
    FAILS = "fails"
    DAMAGED = "damaged"
    NOT_UNDERSTOOD = "not-understood"


class RegistryFault(Exception):
    """A registry does not give what it was asked for.

    detail  what was asked, and what the network or the registry says of it
    wait_s  after how long it wants to be asked again; None: it does not say
    """

    def __init__(self, why: Fault, detail: str, wait_s: float | None = None) -> None:
        super().__init__(f"{why.value}: {detail}")
        self.why, self.detail, self.wait_s = why, detail, wait_s


class _BrokenOff(RegistryFault):
    """A blob that was on its way."""


Digest = Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]


class _Json(msgspec.Struct, frozen=True, rename="camel"):
    """Part of a document of a registry; keys that it does not name are ignored."""


class Platform(_Json, frozen=True):
    """What an image of an index runs on."""

    os: str = ""
    architecture: str = ""


class Descriptor(_Json, frozen=True):
    """A blob or a manifest as others refer to it; `size` in bytes."""

    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0)]
    media_type: str = ""
    platform: Platform | None = None


class _Document(_Json, frozen=True):
    """An index, which has manifests, or a manifest, which has layers."""

    manifests: tuple[Descriptor, ...] = ()
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()


class Step(msgspec.Struct, frozen=True):
    """How a layer was made: the Dockerfile's line, more or less."""

    created_by: str = ""
    empty_layer: bool = False


class _Config(msgspec.Struct, frozen=True):
    history: tuple[Step, ...] | None = None


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""


@dataclass(frozen=True)
class Layer:
    """One of an image's layers; ``created_by``: see `Step`, empty where that is not known."""

    blob: Descriptor
    created_by: str = ""


@dataclass(frozen=True)
class Image:
    """An image for one platform: its layers, the lowest first; ``digest``: of what the reference points to, which for
    several platforms is their index."""

    digest: str
    layers: tuple[Layer, ...]


class Patience:
    """How long may pass without news, in seconds: from its making, and from each `renew`."""

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self.seconds = seconds
        self.renew()

    def renew(self) -> None:
        """There is news."""
        self._until = time.monotonic() + self.seconds

    def left(self) -> float:
        """Seconds that are left; 0 when it is at an end."""
        return max(0.0, self._until - time.monotonic())


_Kind = TypeVar("_Kind")


class Repository:
    """The repository of an image in its registry, for one who has so much patience: renewed by the bytes of a blob that
    is fetched, not by answers before it. A context manager. What it does raises `RegistryFault`.
    """

    def __init__(self, reference: ImageReference, patience: Patience) -> None:
        """Raises `Problem` where the reference leads to no address."""
        self.reference = reference
        self._api = reference.api
        self._patience = patience
        self._session = requests.Session()
        self._authorization: dict[str, str] = {}

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @property
    def host(self) -> str:
        """Who is asked."""
        return urlsplit(self._api).netloc

    def digest(self, platform: Platform) -> str:
        """What the reference points to today: the manifest, or the index that has one for this platform."""
        document, digest = self._manifest(self.reference.version)
        if document.manifests:
            self._for(platform, document)
        return digest

    def image(self, platform: Platform) -> Image:
        """The image for a platform (of an image for a single one, that)."""
        document, digest = self._manifest(self.reference.version)
        if document.manifests:
            document, _ = self._manifest(self._for(platform, document).digest)
        if document.config is None or not document.layers:
            raise RegistryFault(Fault.NOT_UNDERSTOOD, f"{self.host}: the manifest of {self._name} has no layers")
        steps = [step for step in self._config(document.config).history or () if not step.empty_layer]
        if len(steps) != len(document.layers):  # it need not be kept
            steps = [Step()] * len(document.layers)
        layers = (Layer(blob, step.created_by) for blob, step in zip(document.layers, steps, strict=True))
        return Image(digest, tuple(layers))

    def fetch(self, blob: Descriptor, path: Path, advance: Callable[[int], None]) -> None:
        """Fetch a blob into the file ``path``, going on where an earlier attempt left it; verified at the end.

        ``advance`` is told how many bytes are there more, what was there at first included (fewer: negative). What is
        not as its digest says is deleted, and all else that fails leaves what has come. Raises OSError where it cannot
        be written.
        """
        for attempt in range(RESTARTS + 1):
            left = path.stat().st_size if path.exists() else 0
            found = self._fetched(blob, path, advance)
            if found == blob.digest:
                return
            path.unlink()
            if not left or attempt == RESTARTS:
                break
            advance(-blob.size)
        raise RegistryFault(Fault.DAMAGED, f"{self.host}: {blob.digest} came as {found}")

    def _fetched(self, blob: Descriptor, path: Path, advance: Callable[[int], None]) -> str:
        """Complete ``path``; returns the digest of what is in it then."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell() > blob.size:
                file.truncate(0)
            file.seek(0)
            digest = hashlib.sha256()
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                advance(len(chunk))
            have, pause, restarts, fruitless, came = file.tell(), FIRST_PAUSE_S, 0, 0, False
            while have < blob.size:
                before = have
                try:
                    with self._open(f"blobs/{blob.digest}", start=have) as answer:
                        if have and answer.status_code != requests.codes.partial_content:
                            if restarts == RESTARTS:
                                raise RegistryFault(Fault.FAILS, f"{self.host}: it breaks off, and cannot go on")
                            file.truncate(0)
                            digest = hashlib.sha256()
                            advance(-have)
                            have, before, restarts = 0, 0, restarts + 1
                        for chunk in self._chunks(answer):
                            file.write(chunk)
                            digest.update(chunk)
                            advance(len(chunk))
                            have, pause, fruitless, came = have + len(chunk), FIRST_PAUSE_S, 0, True
                            if have > blob.size:  # its digest will say so
                                break
                    if have == before:
                        raise _BrokenOff(Fault.NO_ANSWER, f"{self.host}: it sends nothing")
                except RegistryFault as fault:
                    fruitless += isinstance(fault, _BrokenOff) and have == before
                    if fruitless > RESTARTS:
                        said = f"{self.host}: it breaks off after {have} of {blob.size} bytes"
                        raise RegistryFault(Fault.FAILS, said) from None
                    # A connection that breaks off is taken up again; one that never was is not.
                    if fault.why is not Fault.NO_ANSWER or not came or pause >= self._patience.left():
                        raise
                    time.sleep(pause)
                    pause *= 2
        return f"sha256:{digest.hexdigest()}"

    def _chunks(self, answer: requests.Response) -> Iterator[bytes]:
        """A blob's bytes as they come; they renew the patience."""
        news = 0
        while True:
            try:
                chunk: bytes = answer.raw.read1(CHUNK, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise _BrokenOff(Fault.NO_ANSWER, f"{self.host}: {_cause(error)}") from None
            if not chunk:
                return
            yield chunk
            news += len(chunk)
            if news >= CHUNK:
                self._patience.renew()
                news = 0
            elif not self._patience.left():
                slow = f"less than {CHUNK // 1000} kB in {self._patience.seconds:g} s"
                raise RegistryFault(Fault.NO_ANSWER, f"{self.host}: {slow}")

    @property
    def _name(self) -> str:
        return f"{self.reference.repository}:{self.reference.version}"

    def _manifest(self, version: str) -> tuple[_Document, str]:
        """A manifest or an index by its digest or its tag, and its digest."""
        content = self._content(f"manifests/{version}", accept=", ".join((*_INDEXES, *_MANIFESTS)))
        digest = _digest(content)
        if version.startswith("sha256:") and version != digest:
            raise RegistryFault(Fault.DAMAGED, f"{self.host}: {version} came as {digest}")
        return self._decoded(content, _Document, "manifest"), digest

    def _for(self, platform: Platform, index: _Document) -> Descriptor:
        """The manifest for a platform."""
        for one in index.manifests:
            if one.platform and (one.platform.os, one.platform.architecture) == (platform.os, platform.architecture):
                return one
        missing = f"{self.host}: {self._name} for {platform.os}/{platform.architecture}"
        raise RegistryFault(Fault.NOT_FOUND, missing)

    def _config(self, blob: Descriptor) -> _Config:
        content = self._content(f"blobs/{blob.digest}")
        if _digest(content) != blob.digest:
            raise RegistryFault(Fault.DAMAGED, f"{self.host}: {blob.digest} came as {_digest(content)}")
        return self._decoded(content, _Config, "configuration")

    def _decoded(self, content: bytes, kind: type[_Kind], what: str) -> _Kind:
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            detail = f"{self.host}: the {what} of {self._name}: {error}"
            raise RegistryFault(Fault.NOT_UNDERSTOOD, detail) from None

    def _content(self, path: str, accept: str = "*/*") -> bytes:
        """A small document, whole."""
        with self._open(path, accept) as answer:
            content: bytes = self._within(lambda: answer.raw.read(MOST_BYTES + 1, decode_content=True))
        if len(content) > MOST_BYTES:
            raise RegistryFault(Fault.NOT_UNDERSTOOD, f"{self.host}: {path} is larger than {MOST_BYTES >> 20} MiB")
        return content

    def _open(self, path: str, accept: str = "*/*", start: int = 0) -> requests.Response:
        """A good answer to GET below the repository, with its body, from the byte ``start`` on, still to come; a
        registry that is busy or fails is asked again."""
        headers = {"Accept": accept, "Accept-Encoding": "identity", "User-Agent": "tandem"}
        if start:
            headers["Range"] = f"bytes={start}-"
        pause = FIRST_PAUSE_S
        while True:
            try:
                return self._asked(path, headers)
            except RegistryFault as fault:
                wait = pause if fault.wait_s is None else fault.wait_s
                if fault.why not in (Fault.BUSY, Fault.FAILS) or wait >= self._patience.left():
                    raise
                time.sleep(wait)
                pause *= 2

    def _asked(self, path: str, headers: Mapping[str, str]) -> requests.Response:
        """A good answer to one GET; a challenge is met once, such as when a token has expired."""
        url = f"{self._api}/{path}"
        answer = self._get(url, {**headers, **self._authorization})
        if answer.status_code == requests.codes.unauthorized and not answer.history:
            answer.close()
            self._authorization = self._authorized(answer.headers.get("WWW-Authenticate", ""))
            if self._authorization:
                answer = self._get(url, {**headers, **self._authorization})
        self._require_good(answer, path)
        return answer

    def _authorized(self, challenge: str) -> dict[str, str]:
        """The header that a challenge asks for; empty where that cannot be had."""
        scheme, _, rest = challenge.partition(" ")
        login = _login(self.reference.registry)
        basic = {"Authorization": f"Basic {login}"} if login else {}
        if scheme.lower() == "basic":
            return basic
        try:
            terms = parse_keqv_list(parse_http_list(rest))
        except ValueError:
            return {}
        realm = terms.get("realm", "")
        if scheme.lower() != "bearer" or urlsplit(realm).scheme not in ("http", "https"):
            return {}
        if urlsplit(realm).scheme == "http" and not self._api.startswith("http:"):
            basic = {}  # not for everyone to read
        query: dict[str, str] = {key: value for key, value in terms.items() if key in ("service", "scope")}
        with self._get(realm, {**basic, "User-Agent": "tandem"}, query) as answer:
            self._require_good(answer, urlsplit(realm).netloc)
            content = self._within(lambda: answer.raw.read(MOST_BYTES, decode_content=True))
        token = self._decoded(content, _Token, "token")
        return {"Authorization": f"Bearer {token.token or token.access_token}"}

    def _get(self, url: str, headers: Mapping[str, str], query: Mapping[str, str] | None = None) -> requests.Response:
        """One GET, redirects followed: `requests` leaves the authorization out on the way to another host."""
        wait = self._patience.seconds
        return self._within(
            lambda: self._session.get(
                url, params=query, headers=headers, stream=True, timeout=wait, auth=_as_it_is, allow_redirects=True
            )
        )

    def _within(self, call: Callable[[], _Kind]) -> _Kind:
        """What ``call`` returns, unless that takes longer than the patience lasts.

        In a thread that is left behind then, since the look-up of a host's name cannot be interrupted, and a connection
        is tried at each of its addresses.
        """
        answers: queue.SimpleQueue[tuple[_Kind | None, Exception | None]] = queue.SimpleQueue()

        def work() -> None:
            try:
                answers.put((call(), None))
            except Exception as error:
                answers.put((None, error))

        threading.Thread(target=work, daemon=True).start()
        try:
            answer, error = answers.get(timeout=self._patience.left())
        except queue.Empty:
            nothing = f"{self.host}: no answer in {self._patience.seconds:g} s"
            raise RegistryFault(Fault.NO_ANSWER, nothing) from None
        if isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError, OSError)):
            raise RegistryFault(Fault.NO_ANSWER, f"{self.host}: {_cause(error)}") from None
        if error:
            raise error
        return answer  # type: ignore[return-value]  # there is one or the other

    def _require_good(self, answer: requests.Response, path: str) -> None:
        """Raise `RegistryFault`, and close the answer, unless it is what was asked for."""
        status = answer.status_code
        if status in (requests.codes.ok, requests.codes.partial_content):
            return
        wait = _retry_after(answer.headers.get("Retry-After", ""))
        answer.close()
        said = f"{self.host}: {status} for {path}"
        if status in (requests.codes.unauthorized, requests.codes.forbidden):
            raise RegistryFault(Fault.REFUSED, said)
        if status == requests.codes.not_found:
            raise RegistryFault(Fault.NOT_FOUND, f"{self.host}: {self._name}")
        if status == requests.codes.too_many_requests:
            raise RegistryFault(Fault.BUSY, said, wait)
        if status == requests.codes.requested_range_not_satisfiable:
            raise RegistryFault(Fault.DAMAGED, f"{self.host}: {path} is shorter than its manifest says")
        if status >= 500:
            raise RegistryFault(Fault.FAILS, said, wait)
        raise RegistryFault(Fault.NOT_UNDERSTOOD, said)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps `requests` from putting a login of .netrc in the place of a token."""
    return request


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _retry_after(text: str) -> float | None:
    """Seconds, of either form of the header; None where it says nothing."""
    if text.isdigit():
        return float(text)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _login(registry: str) -> str:
    """The login for a registry as `docker login` keeps it, name and password in base64; empty where it has none.
    Docker's credential helpers are not asked."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or "~/.docker")
    with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
        kept = json.loads((folder.expanduser() / "config.json").read_text("utf-8-sig")).get("auths", {})
        for name in (_HUB_LOGIN if registry == DOCKER_HUB else registry, f"https://{registry}"):
            if login := kept.get(name, {}).get("auth"):
                return str(login)
    return ""


def _cause(error: BaseException) -> str:
    """The innermost reason of a failed request: what the system said, if it said anything."""
    told = ""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            break
        if isinstance(seen, TimeoutError):
            told = "timed out"
        elif isinstance(seen, OSError) and seen.strerror:
            told = seen.strerror
        reason = getattr(seen, "reason", None)
        inner = next((one for one in seen.args if isinstance(one, BaseException)), None)
        seen = (reason if isinstance(reason, BaseException) else None) or inner or seen.__cause__ or seen.__context__
    return told or (str(error).splitlines() or [type(error).__name__])[0][:160]

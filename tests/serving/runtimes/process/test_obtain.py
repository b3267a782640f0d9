"""TensorFlow Serving's program out of its image, from a real registry that holds an image made here; with a proxy in
front of it for what a real registry does not do on demand. The program is a script that says what the real one says."""

from __future__ import annotations

import base64
import errno
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from backports import zstd

from models.problem import Problem
from serving import ports
from serving.engines import registry as engines
from serving.runtimes.containers import base_images, image_file
from serving.runtimes.process import launch, obtain, own_program
from serving.runtimes.process.download_bar import DownloadProgress
from serving.target import WhyStandIn
from tests.docker.registry_front import TOKEN, Front, Rule, front
from tests.docker.registry_process import (
    HTPASSWD,
    PASSWORD,
    USER,
    Made,
    Pushed,
    blob_on_disk,
    push,
    registry_running,
)

ROOT = Path(__file__).resolve().parents[4]
ENGINE = engines.engine("tensorflow-serving")
IMAGE = "tensorflow/serving:2.20.0"
REPOSITORY = "/v2/tensorflow/serving"
FILE = "/usr/bin/tensorflow_model_server"
COPY = f"COPY /usr/local/bin/tensorflow_model_server {FILE} # buildkit"
ENTRY_POINT = "RUN /bin/sh -c echo 'tensorflow_model_server --port=8500 \"$@\"' > /usr/bin/tf_serving_entrypoint.sh"
PROGRAM = b"""#!/bin/sh
[ "$1" = --version ] || exit 3
echo "TensorFlow ModelServer: 2.20.0-rc1"
echo "TensorFlow Library: 2.20.0"
"""
# What does not compress, so that the layer is some megabytes and takes a while to come.
BALLAST = {"/usr/share/ballast": random.Random(7).randbytes(3_000_000)}
LOWEST = Made({"/etc/os-release": b"ID=ubuntu\n"}, "/bin/sh -c #(nop) ADD file:6d8e in / ")
HOLDS_IT = Made({**BALLAST, FILE: PROGRAM}, COPY)
HIGHEST = Made({"/usr/bin/tf_serving_entrypoint.sh": b"#!/bin/bash\n"}, ENTRY_POINT)


@dataclass
class Away:
    """A registry with the image, what stands in front of it, and where the program will be."""

    folder: Path
    registry: str
    front: Front
    image: Pushed
    cache: Path

    def rule(self, path: str, **what) -> None:
        self.front.rules.append(Rule(path, **what))

    @property
    def blob(self) -> str:
        return f"{REPOSITORY}/blobs/{self.image.layers[1]}"


@pytest.fixture
def away(tmp_path, monkeypatch) -> Iterator[Away]:
    """The image in a registry that is asked instead of Docker Hub, and an empty cache."""
    with registry_running(tmp_path) as registry, front(registry) as before:
        image = push(registry, IMAGE, [LOWEST, HOLDS_IT, HIGHEST])
        user(monkeypatch, tmp_path, f"http://{before.host}")
        yield Away(tmp_path, registry, before, image, tmp_path / "cache")


def user(monkeypatch, folder: Path, mirror: str) -> None:
    """A user without TensorFlow Serving, whose image is not pinned by digest."""
    monkeypatch.delenv("TFSERVING", raising=False)
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("REGISTRY_MIRROR", mirror)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / "docker"))
    pinned(monkeypatch)


def pinned(monkeypatch, digest: str = "", image: str = IMAGE) -> None:
    """docker/base-images.env says so."""
    known = {"TENSORFLOW_SERVING_IMAGE": image, "TENSORFLOW_SERVING_DIGEST": digest and f"@{digest}"}
    monkeypatch.setattr(base_images, "variables", lambda **_: known)


def why(**how) -> WhyStandIn:
    """Why the program could not be had."""
    with pytest.raises(obtain.NotObtained) as caught:
        obtain.obtain(ENGINE, **how)
    return caught.value.why


def left(away: Away) -> list[str]:
    """The files in the cache, but for the lock."""
    return sorted(path.name for path in away.cache.rglob("*") if path.is_file() and path.name != "lock")


def says(program: Path) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout


def elsewhere(*verb: str) -> subprocess.Popen[str]:
    """The command line in a process of its own, with the same environment, whose image is not pinned by digest."""
    known = {"TENSORFLOW_SERVING_IMAGE": IMAGE, "TENSORFLOW_SERVING_DIGEST": ""}
    code = (
        "import sys; from serving.runtimes.containers import base_images; "
        f"base_images.variables = lambda **_: {known!r}; "
        f"from serving.__main__ import main; sys.exit(main({list(verb)!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_program_comes_out_of_the_one_layer_that_holds_it(away, capsys):
    program = obtain.obtain(ENGINE)
    assert program == away.cache / "tandem" / "tensorflow-serving-2.20.0" / "tensorflow_model_server"
    assert program.read_bytes() == PROGRAM
    assert says(program).startswith("TensorFlow ModelServer: 2.20.0-rc1")
    blobs = [one.path for one in away.front.of("/blobs/")]
    assert away.blob in blobs
    assert len(blobs) == 2  # and the configuration
    assert away.front.asked[1].path == f"{REPOSITORY}/manifests/{away.image.manifests['linux/amd64']}"
    assert left(away) == ["origin.json", "tensorflow_model_server"]
    origin = json.loads(program.with_name("origin.json").read_text())
    assert (origin["image"], origin["digest"], origin["layer"]) == (IMAGE, away.image.index, away.image.layers[1])
    told = capsys.readouterr().err
    assert told.index("3 MB, into") < told.index("TensorFlow Serving 2.20.0-rc1 (tensorflow 2.20.0) is in")


def test_the_second_time_needs_no_network(away, monkeypatch):
    program = obtain.obtain(ENGINE)
    asked = len(away.front.asked)
    monkeypatch.setenv("REGISTRY_MIRROR", f"http://{ports.LOOPBACK}:{ports.free(1)[0]}")
    assert obtain.obtain(ENGINE) == program
    assert own_program.find(ENGINE) == program
    assert launch.at_hand(ENGINE) is ENGINE
    assert obtain.provide([ENGINE]) == []
    assert len(away.front.asked) == asked


def test_a_pinned_digest_is_what_is_asked_for_and_has_a_cache_of_its_own(away, monkeypatch):
    by_tag = obtain.obtain(ENGINE)
    pinned(monkeypatch, away.image.index)
    assert own_program.find(ENGINE) is None
    by_digest = obtain.obtain(ENGINE)
    assert by_digest.parent.name == f"tensorflow-serving-2.20.0-{away.image.index[7:23]}"
    assert away.front.of(f"/manifests/{away.image.index}")
    assert by_tag.exists()
    pinned(monkeypatch, f"sha256:{'0' * 64}")
    assert why() is WhyStandIn.NOT_FOUND


def test_a_manifest_that_is_not_what_its_digest_says(away, monkeypatch):
    pinned(monkeypatch, away.image.index)
    away.rule("/manifests/", other=f"{REPOSITORY}/manifests/{away.image.manifests['linux/arm64']}")
    assert why() is WhyStandIn.DAMAGED
    assert away.front.of("/blobs/") == []


@pytest.mark.parametrize("damage", [lambda content: content[:-1] + b"?", lambda content: content[: len(content) // 2]])
def test_a_layer_that_is_changed_or_cut_short_in_the_registry_is_never_unpacked(away, damage):
    file = blob_on_disk(away.folder, away.image.layers[1])
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert why() is WhyStandIn.DAMAGED
    assert not [name for name in left(away) if name.startswith("tensorflow")]
    file.write_bytes(whole)
    assert obtain.obtain(ENGINE).read_bytes() == PROGRAM


def test_what_an_earlier_attempt_left_damaged_is_fetched_anew(away):
    away.rule(away.blob, cut=1_000_000, times=1)
    away.rule(away.blob, status=500)
    assert why(patience_s=1) is WhyStandIn.FAILS
    (layer,) = away.cache.rglob("*.layer")
    layer.write_bytes(b"x" + layer.read_bytes()[1:])
    away.front.rules.clear()
    assert obtain.obtain(ENGINE).read_bytes() == PROGRAM


def test_a_registry_that_lets_nobody_in_that_it_does_not_know(tmp_path, monkeypatch):
    (tmp_path / "htpasswd").write_text(f"{HTPASSWD}\n")
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    with registry_running(open_to_all) as registry:
        push(registry, IMAGE, [LOWEST, HOLDS_IT, HIGHEST])
    shutil.move(open_to_all / "storage", tmp_path / "storage")
    auth = {"htpasswd": {"realm": "tests", "path": str(tmp_path / "htpasswd")}}
    with registry_running(tmp_path, auth=auth) as closed:
        user(monkeypatch, tmp_path, closed)
        pinned(monkeypatch, image=f"{closed}/{IMAGE}")
        assert why() is WhyStandIn.REFUSED
        (tmp_path / "docker").mkdir()
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {closed: {"auth": login}}}))
        assert obtain.obtain(ENGINE).read_bytes() == PROGRAM


def test_a_tag_that_does_not_exist(away, monkeypatch):
    pinned(monkeypatch, image="tensorflow/serving:9.9.9")
    with pytest.raises(obtain.NotObtained, match=r"tensorflow/serving:9\.9\.9") as caught:
        obtain.obtain(ENGINE)
    assert caught.value.why is WhyStandIn.NOT_FOUND


def test_an_image_for_other_machines_only(away, monkeypatch):
    push(away.registry, "tensorflow/serving:arm", [LOWEST, HOLDS_IT], platforms=["linux/arm64"])
    pinned(monkeypatch, image="tensorflow/serving:arm")
    assert why() is WhyStandIn.NOT_FOUND


@pytest.mark.parametrize(("status", "found"), [(403, WhyStandIn.REFUSED), (400, WhyStandIn.NOT_UNDERSTOOD)])
def test_what_will_not_change_by_asking_again_is_not_asked_again(away, status, found):
    away.rule("/manifests/", status=status)
    assert why() is found
    assert len(away.front.asked) == 1


@pytest.mark.parametrize(
    ("status", "header", "found"),
    [(429, {"Retry-After": "3600"}, WhyStandIn.BUSY), (503, {}, WhyStandIn.FAILS), (500, {}, WhyStandIn.FAILS)],
)
def test_a_registry_that_is_busy_or_fails_for_longer_than_there_is_patience(away, status, header, found):
    away.rule("/manifests/", status=status, headers=header)
    begun = time.monotonic()
    assert why(patience_s=1.5) is found
    assert time.monotonic() - begun < 2.5


@pytest.mark.parametrize("path", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "1"}), (502, {}), (503, {"Retry-After": "0"})])
def test_a_registry_that_is_busy_or_fails_for_a_moment_is_asked_again(away, path, status, headers):
    away.rule(path, status=status, headers=headers, times=2)
    assert obtain.obtain(ENGINE).read_bytes() == PROGRAM


def test_a_token_is_fetched_kept_and_fetched_anew_when_it_has_expired(away):
    challenge = away.front.require_token()
    expires = [Rule(away.blob, cut=1_000_000, times=1), Rule(away.blob, status=401, headers=challenge, times=1)]
    away.front.rules = [*expires, *away.front.rules]
    assert obtain.obtain(ENGINE).read_bytes() == PROGRAM
    (first, second) = away.front.of("/token")
    assert first.path == second.path == "/token?service=tests&scope=repository%3Atensorflow%2Fserving%3Apull"
    assert "authorization" not in first.headers
    assert away.front.of(away.blob)[-1].headers["range"] == "bytes=1000000-"


def test_a_redirect_is_followed_without_the_token(away):
    with front(away.registry) as elsewhere_host:
        there = f"http://localhost:{elsewhere_host.host.rpartition(':')[2]}{away.blob}"
        away.front.require_token()
        away.front.rules.insert(0, Rule(away.blob, status=307, headers={"Location": there}))
        assert obtain.obtain(ENGINE).read_bytes() == PROGRAM
        (redirected,) = elsewhere_host.asked
    assert "authorization" not in redirected.headers
    assert away.front.of(away.blob)[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_a_server_that_trickles_is_given_up_and_what_came_is_kept(away):
    away.rule(away.blob, pause_s=0.1, slice=2_000)
    begun = time.monotonic()
    assert why(patience_s=1.5) is WhyStandIn.NO_ANSWER
    assert time.monotonic() - begun < 4
    (kept,) = away.cache.rglob("*.layer")
    came = kept.stat().st_size
    assert came > 0
    away.front.rules.clear()
    assert obtain.obtain(ENGINE).read_bytes() == PROGRAM
    assert away.front.of(away.blob)[-1].headers["range"] == f"bytes={came}-"


def test_a_slow_server_that_goes_on_is_waited_for(away):
    """Three megabytes at some 1.3 MB a second, with less patience than that takes."""
    away.rule(away.blob, pause_s=0.05)
    begun = time.monotonic()
    assert obtain.obtain(ENGINE, patience_s=1).read_bytes() == PROGRAM
    assert time.monotonic() - begun > 1.5


def test_a_line_that_is_cut_is_taken_up_where_it_was(away):
    away.rule(away.blob, cut=1_000_000, times=2)
    assert obtain.obtain(ENGINE).read_bytes() == PROGRAM
    assert [one.headers.get("range") for one in away.front.of(away.blob)] == [
        None,
        "bytes=1000000-",
        "bytes=2000000-",
    ]


def test_a_line_that_is_cut_again_and_again_at_one_place_is_given_up(away):
    away.rule(away.blob, cut=1_000_000, times=1)
    away.rule(away.blob, cut=0)
    with pytest.raises(obtain.NotObtained, match="it breaks off after 1000000 of") as caught:
        obtain.obtain(ENGINE)
    assert caught.value.why is WhyStandIn.FAILS


def test_a_server_that_cannot_go_on_in_the_middle_begins_anew(away):
    away.rule(away.blob, cut=1_000_000, times=1)
    away.rule(away.blob, ranges=False)
    assert obtain.obtain(ENGINE).read_bytes() == PROGRAM


def test_one_that_cannot_go_on_and_always_breaks_off_is_given_up(away):
    away.rule(away.blob, cut=1_000_000, ranges=False)
    assert why() is WhyStandIn.FAILS


def test_nobody_there_is_said_at_once(tmp_path, monkeypatch):
    user(monkeypatch, tmp_path, f"http://{ports.LOOPBACK}:{ports.free(1)[0]}")
    begun = time.monotonic()
    with pytest.raises(obtain.NotObtained, match="Connection refused") as caught:
        obtain.obtain(ENGINE)
    assert caught.value.why is WhyStandIn.NO_ANSWER
    assert time.monotonic() - begun < 2


def test_a_server_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    import socket

    with socket.create_server((ports.LOOPBACK, 0)) as silent:
        user(monkeypatch, tmp_path, f"http://{ports.LOOPBACK}:{silent.getsockname()[1]}")
        begun = time.monotonic()
        assert why(patience_s=1) is WhyStandIn.NO_ANSWER
        assert time.monotonic() - begun < 2


def test_killed_half_way_it_goes_on_where_it_was(away):
    away.rule(away.blob, pause_s=0.1)  # five seconds for the whole
    first = elsewhere("obtain", ENGINE.id)
    deadline = time.monotonic() + 60
    while not [path for path in away.cache.rglob("*.layer") if path.stat().st_size > 500_000]:
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert own_program.find(ENGINE) is None
    (kept,) = away.cache.rglob("*.layer")
    came = kept.stat().st_size
    away.front.rules.clear()
    second = elsewhere("obtain", ENGINE.id)
    path, told = second.communicate(timeout=60)
    assert second.returncode == 0, told
    assert "of which" in told
    assert away.front.of(away.blob)[-1].headers["range"] == f"bytes={came}-"
    assert Path(path.strip()).read_bytes() == PROGRAM


def test_of_two_at_once_one_fetches_and_both_have_it(away):
    away.rule(away.blob, pause_s=0.03)
    both = [elsewhere("obtain", ENGINE.id) for _ in range(2)]
    ended = [one.communicate(timeout=60) for one in both]
    assert [one.returncode for one in both] == [0, 0], ended
    assert len({path for path, _ in ended}) == 1
    assert len(away.front.of(away.blob)) == 1
    assert sum("waiting for that one" in told for _, told in ended) == 1


def test_make_s_target_says_in_one_line_what_is_wrong(away, capsys):
    from serving.__main__ import main

    away.rule("/manifests/", status=403)
    assert main(["obtain", ENGINE.id]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: TensorFlow Serving cannot be had: the registry lets nobody in")
    assert "REGISTRY_MIRROR=HOST" in line
    assert "make tensorflow-serving" not in line  # which is what was called


@pytest.mark.parametrize("where", ["machine", "system"])
def test_on_another_machine_nothing_is_asked(away, monkeypatch, where):
    monkeypatch.setattr(platform, where, lambda: {"machine": "aarch64", "system": "Darwin"}[where])
    assert why() is WhyStandIn.MACHINE
    assert away.front.asked == []


def test_with_another_c_library_nothing_is_asked(away, monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))  # as on Alpine
    assert why() is WhyStandIn.C_LIBRARY
    assert away.front.asked == []


def test_a_program_that_needs_a_newer_c_library_says_which_and_is_not_fetched_again(away, monkeypatch):
    """A real program whose needs were edited: the loader refuses it as it refuses one built on a newer system."""
    true = Path(shutil.which("true") or "").read_bytes()
    newer = re.sub(rb"GLIBC_2\.", b"GLIBC_9.", true)
    push(away.registry, "tensorflow/serving:newer", [LOWEST, Made({FILE: newer}, COPY)])
    pinned(monkeypatch, image="tensorflow/serving:newer")
    with pytest.raises(obtain.NotObtained, match=r"glibc \d\.\d+, and it needs 9\.") as caught:
        obtain.obtain(ENGINE)
    assert caught.value.why is WhyStandIn.C_LIBRARY
    assert own_program.find(ENGINE) is None
    asked = len(away.front.asked)
    assert why() is WhyStandIn.C_LIBRARY
    assert len(away.front.asked) == asked


@pytest.mark.parametrize("program", [b"#!/bin/sh\nexit 1\n", b"#!/bin/sh\necho hello\n", b"\x7fELF but no program"])
def test_a_program_that_is_none_or_another_stands_in_no_run(away, monkeypatch, program):
    push(away.registry, "tensorflow/serving:other", [LOWEST, Made({FILE: program}, COPY)])
    pinned(monkeypatch, image="tensorflow/serving:other")
    assert why() is WhyStandIn.DOES_NOT_START
    assert own_program.find(ENGINE) is None
    assert launch.at_hand(ENGINE) is not ENGINE


def test_a_fetched_program_that_does_not_start_any_more_stands_in_no_run(away):
    program = obtain.obtain(ENGINE)
    program.write_bytes(b"#!/bin/sh\nexit 1\n")
    (absent,) = obtain.provide([ENGINE])
    assert absent.why is WhyStandIn.DOES_NOT_START
    assert launch.at_hand(ENGINE) is not ENGINE
    program.with_name("tensorflow_model_server.untried").write_bytes(PROGRAM)  # the machine has been mended
    assert obtain.provide([ENGINE]) == []
    assert launch.at_hand(ENGINE) is ENGINE
    assert len(away.front.of(away.blob)) == 1


def test_an_image_without_it_is_looked_through_to_its_lowest_layer(away, monkeypatch):
    push(away.registry, "tensorflow/serving:without", [LOWEST, HIGHEST])
    pinned(monkeypatch, image="tensorflow/serving:without")
    assert why() is WhyStandIn.NOT_IN_IMAGE
    assert len(away.front.of("/blobs/")) == 3  # the configuration and both layers
    assert left(away) == []


def same(content: bytes) -> bytes:
    return content


@pytest.mark.parametrize("compress", [same, zstd.compress])
@pytest.mark.parametrize("created_by", [COPY, "COPY dir:0815 in / ", ""])
def test_it_is_found_however_the_image_was_made(away, monkeypatch, compress, created_by):
    holds_it = Made({FILE: PROGRAM}, created_by, compress, "application/vnd.oci.image.layer.v1.tar")
    push(away.registry, "tensorflow/serving:made", [LOWEST, holds_it, HIGHEST], history=bool(created_by))
    pinned(monkeypatch, image="tensorflow/serving:made")
    assert obtain.obtain(ENGINE).read_bytes() == PROGRAM


@pytest.mark.parametrize("compress", [lambda _: b"no archive", lambda content: zstd.compress(content)[:-9]])
def test_a_layer_that_is_no_archive(away, monkeypatch, compress):
    push(away.registry, "tensorflow/serving:odd", [Made({FILE: PROGRAM}, COPY, compress)])
    pinned(monkeypatch, image="tensorflow/serving:odd")
    assert why() is WhyStandIn.NOT_UNDERSTOOD
    assert left(away) == []


def test_a_later_layer_hides_what_is_below(away, monkeypatch):
    newer = PROGRAM.replace(b"rc1", b"rc2")
    layers = [Made({FILE: PROGRAM}, COPY), Made({FILE: newer}, f"RUN /bin/sh -c strip {FILE}"), HIGHEST]
    push(away.registry, "tensorflow/serving:twice", layers)
    pinned(monkeypatch, image="tensorflow/serving:twice")
    assert obtain.obtain(ENGINE).read_bytes() == newer


def test_a_full_disk_leaves_nothing_on_it(away, monkeypatch):
    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(image_file, "extract", full)  # no disk can be filled here
    assert why() is WhyStandIn.NO_SPACE
    assert left(away) == []


def test_a_cache_that_cannot_be_written(away, monkeypatch):
    (away.folder / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(away.folder / "file"))
    assert why() is WhyStandIn.NOT_WRITABLE
    assert away.front.asked == []


def test_a_mirror_s_address_that_is_none_is_the_user_s_to_mend(away, monkeypatch):
    monkeypatch.setenv("REGISTRY_MIRROR", "ftp://mirror.example.com")
    with pytest.raises(Problem, match=r"REGISTRY_MIRROR=ftp://mirror\.example\.com: use \[http://\]HOST"):
        obtain.obtain(ENGINE)


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PROGRAM)
    path.chmod(0o755)
    return path


def test_which_program_runs(away, monkeypatch, tmp_path):
    """The fetched one last, that of the flag first; the variable's comes before the PATH's, and so does "embedded"."""
    fetched = obtain.obtain(ENGINE)
    assert own_program.find(ENGINE) == fetched
    on_path = executable(tmp_path / "bin" / "tensorflow_model_server")
    monkeypatch.setenv("PATH", str(on_path.parent), prepend=os.pathsep)
    assert own_program.find(ENGINE) == on_path
    chosen = executable(tmp_path / "chosen")
    monkeypatch.setenv("TFSERVING", str(chosen))
    assert own_program.find(ENGINE) == chosen
    monkeypatch.setenv("TFSERVING", "embedded")
    assert own_program.find(ENGINE) is None
    assert launch.at_hand(ENGINE).id == "embedded-tfserving"
    assert own_program.find(ENGINE, {ENGINE.id: on_path}) == on_path
    monkeypatch.setenv("TFSERVING", str(tmp_path / "nowhere"))
    with pytest.raises(Problem, match=r"TFSERVING .*nowhere: no executable file there"):
        own_program.find(ENGINE)


def test_whoever_asks_for_the_stand_in_causes_no_request(away, monkeypatch):
    monkeypatch.setenv("TFSERVING", "embedded")
    (absent,) = obtain.provide([engines.engine("torchserve"), ENGINE, ENGINE])
    assert (absent.engine.id, absent.stand_in.id, absent.why) == (ENGINE.id, "embedded-tfserving", WhyStandIn.ASKED)
    assert away.front.asked == []


def test_a_log_gets_plain_lines_with_rate_and_time_left(away, monkeypatch):
    import io

    from serving.runtimes.process import download_bar

    monkeypatch.setattr(download_bar, "FIRST_LINE_S", 0.2)
    monkeypatch.setattr(download_bar, "LINE_EVERY_S", 0.5)
    away.rule(away.blob, pause_s=0.05)
    stream = io.StringIO()
    obtain.obtain(ENGINE, DownloadProgress(stream))
    assert re.search(r"^ +fetch +\d+ %  \d of 3 MB  \d\.\d MB/s  \d+ s left$", stream.getvalue(), re.MULTILINE)


Started = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def compare(tmp_path) -> Iterator[Started]:
    """Starts `compare`, in a session of its own, and stops it at the end."""
    running = []

    def start(*more: str) -> subprocess.Popen[str]:
        folders = ["--artifacts", str(tmp_path / "artifacts"), "--results", str(tmp_path / "results")]
        command = [sys.executable, "-m", "loadtest", "compare", "--experiment", "smoke", *folders, *more]
        running.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_a_comparison_without_the_network_says_so_in_one_line_and_goes_on(tmp_path, monkeypatch, compare):
    import socket

    with socket.create_server((ports.LOOPBACK, 0)) as silent:
        user(monkeypatch, tmp_path, f"http://{ports.LOOPBACK}:{silent.getsockname()[1]}")
        begun = time.monotonic()
        process = compare()
        assert process.stdout
        line = process.stdout.readline()
        took = time.monotonic() - begun
    stands_in = "note: embedded-tfserving stands in for TensorFlow Serving, since the registry does not answer"
    assert line.startswith(stands_in)
    assert "make tensorflow-serving fetches the real one" in line
    assert took < 10 + 5  # and the interpreter's start
    assert process.poll() is None

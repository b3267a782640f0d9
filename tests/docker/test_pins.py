"""`make pin-images`, against a real registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving import ports
from serving.__main__ import main
from serving.runtimes.containers import base_images
from tests.docker.registry_front import Rule, front
from tests.docker.registry_process import Made, push, registry_running

OLD = f"@sha256:{'0' * 64}"
LAYER = Made({"/file": b"content"})


def written(folder: Path, *images: tuple[str, str]) -> Path:
    """A file of base images: names and what stands behind DIGEST=."""
    file = folder / "base-images.env"
    named = zip("ABC", images, strict=False)
    lines = [f"{name}_IMAGE={image}\n{name}_DIGEST={digest}\n" for name, (image, digest) in named]
    file.write_text("# a comment that stays\n" + "".join(lines), "utf-8-sig")  # as an editor on Windows would
    return file


@pytest.fixture
def pin_images(monkeypatch, tmp_path, capsys):
    """Runs the command on a file; returns its exit status, output and errors."""

    def run(file: Path) -> tuple[int, str, str]:
        monkeypatch.setattr(base_images, "FILE", file)
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        status = main(["pin-images"])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def test_every_tag_gets_the_digest_that_docker_would_pull_it_by(pin_images, tmp_path):
    with registry_running(tmp_path) as host:
        first = push(host, "team/first:1", [LAYER])
        second = push(host, "team/second:2.0", [LAYER], platforms=["linux/amd64"])
        file = written(tmp_path, (f"{host}/team/first:1", ""), (f"{host}/team/second:2.0", OLD))
        status, told, _ = pin_images(file)
        assert status == 0
        assert [line.split()[1:] for line in told.splitlines()] == [[first.index, "new"], [second.index, "new"]]
        assert file.read_text() == (
            "# a comment that stays\n"
            f"A_IMAGE={host}/team/first:1\nA_DIGEST=@{first.index}\n"
            f"B_IMAGE={host}/team/second:2.0\nB_DIGEST=@{second.index}\n"
        )
        status, told, _ = pin_images(file)
        assert (status, told.count("as before")) == (0, 2)


def test_a_tag_that_does_not_exist_is_found_and_the_others_are_pinned(pin_images, tmp_path):
    with registry_running(tmp_path) as host:
        there = push(host, "team/there:1", [LAYER])
        push(host, "team/arm:1", [LAYER], platforms=["linux/arm64"])
        names = [f"{host}/team/{name}" for name in ("gone:1", "there:1", "arm:1")]
        file = written(tmp_path, (names[0], OLD), (names[1], ""), (names[2], ""))
        status, _, error = pin_images(file)
    assert status == 1
    assert error.startswith(f"error: {names[0]}, {names[2]}: no such tag, or none for linux/amd64; correct ")
    assert base_images.variables(file=file) == {
        **{"A_IMAGE": names[0], "A_DIGEST": OLD},
        **{"B_IMAGE": names[1], "B_DIGEST": f"@{there.index}"},
        **{"C_IMAGE": names[2], "C_DIGEST": ""},
    }


@pytest.mark.parametrize("nobody", [True, False])
def test_where_a_registry_does_not_answer_nothing_is_written(pin_images, tmp_path, nobody):
    with registry_running(tmp_path) as host, front(host) as refusing:
        refusing.rules.append(Rule("/", status=403))
        push(host, "team/there:1", [LAYER])
        other = f"{ports.LOOPBACK}:{ports.free(1)[0]}" if nobody else refusing.host
        file = written(tmp_path, (f"{host}/team/there:1", ""), (f"{other}/team/there:1", OLD))
        before = file.read_text()
        status, _, error = pin_images(file)
    assert status == 1
    assert f"{other}/team/there:1: its registry does not say what the tag points to" in error
    assert len(error.splitlines()) == 1
    assert file.read_text() == before

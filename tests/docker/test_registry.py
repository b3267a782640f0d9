"""Images pushed to a real registry (Debian's docker-registry), and a deployment that names what it then holds."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from models.problem import Problem
from serving import __main__ as serving_command_line
from serving import ports
from serving.runtimes.containers import docker_cli, images, registry
from serving.runtimes.kubernetes import __main__ as command_line
from serving.runtimes.kubernetes import deploy, rollout
from tests.components import require_docker_engine
from tests.docker import stand_in
from tests.docker.registry_process import HTPASSWD, PASSWORD, USER, registry_running
from tests.k8s import api_server

# Minutes, because the images are built here where no test has built them before.
pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Iterator[str]:
    """An open registry; whatever was tagged for it is untagged again, with its layers left for other tests' builds."""
    require_docker_engine()
    with registry_running(tmp_path_factory.mktemp("registry")) as running:
        yield running
        names = docker_cli.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        for name in names:
            if name.startswith(f"{running}/"):
                docker_cli.docker("rmi", "--no-prune", name)


def get(host: str, path: str) -> tuple[bytes, str]:
    """The registry's answer to GET /v2/<path>, and the digest that it gives with it."""
    request = urllib.request.Request(f"http://{host}/v2/{path}", headers={"Accept": MANIFEST})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read(), answer.headers.get("Docker-Content-Digest", "")


def labels_there(host: str, image: str) -> tuple[str, dict[str, str]]:
    """The manifest's digest and the labels of an image (its full name) as the registry has them."""
    repository, _, tag = image.removeprefix(f"{host}/").rpartition(":")
    content, digest = get(host, f"{repository}/manifests/{tag}")
    config, _ = get(host, f"{repository}/blobs/{json.loads(content)['config']['digest']}")
    return digest, json.loads(config)["config"]["Labels"]


def told_pushed(text: str) -> dict[str, str]:
    """The images that a verb said it pushed, and their digests."""
    return dict(re.findall(r"^pushed +(\S+) (sha256:[0-9a-f]{64}), [\d,]+ MB$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def deployed(host, bundle, tmp_path_factory) -> tuple[api_server.ApiServer, str]:
    """What `make deploy REGISTRY=…` made of a stand-in cluster, built and pushed by a real engine; what it printed."""
    folder = tmp_path_factory.mktemp("deploy")
    shutil.copytree(bundle.folder.parent, folder / "artifacts" / bundle.model)
    api, console = api_server.ApiServer(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        stand_in.tensorflow_serving(),
        api_server.serving(api, folder / "kubeconfig"),
    ):
        patch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
        patch.setattr(command_line, "RENDERED", folder / "rendered")
        patch.setattr(rollout, "POLL_S", 0.05)
        # tests/k8s/test_prove.py proves through port-forwards; a stand-in has none.
        patch.setattr(deploy, "prove", lambda *_: None)
        patch.setattr("sys.stderr", console)
        arguments = ["--registry", f"{host}/team", "--no-digests", "--artifacts", str(folder / "artifacts")]
        assert command_line.main(["deploy", *arguments]) == 0, console.getvalue()
    return api, console.getvalue()


@pytest.mark.exhaustive  # gigabytes are compressed; below, small images go the same way
def test_what_is_deployed_is_what_the_registry_holds(deployed, host, bundle):
    api, told = deployed
    pushed = told_pushed(told)
    applied = {
        container["image"]
        for (plural, _, _), one in api.objects.items()
        if plural == "deployments"
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    names = ("torchserve", "tensorflow-serving", "loadtest")
    assert set(pushed) == {f"{host}/team/tandem/{name}:{bundle.version}" for name in names}
    assert {image for image in applied if image.startswith(host)} == set(pushed)
    assert not [image for image in applied if image.startswith("tandem/")]
    for image, digest in pushed.items():
        there, labels = labels_there(host, image)
        assert there == digest
        assert labels["dev.tandem.bundle.digest"] == f"sha256:{bundle.digest}"


@pytest.mark.exhaustive
def test_make_images_push_and_the_way_back(deployed, host, bundle, artifacts, monkeypatch, capsys):
    monkeypatch.setattr(images, "chosen", lambda **_: (images.LOADTEST,))  # the others were pushed the same way
    arguments = ["--registry", f"{host}/team", "--no-digests", "--artifacts", str(artifacts)]
    assert serving_command_line.main(["images", "--push", *arguments]) == 0
    ((image, digest),) = told_pushed(capsys.readouterr().out).items()
    assert told_pushed(deployed[1])[image] == digest  # the same content is the same image
    manifest, _ = get(host, f"team/tandem/loadtest/manifests/{digest}")
    for layer in json.loads(manifest)["layers"]:
        content, _ = get(host, f"team/tandem/loadtest/blobs/{layer['digest']}")
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == layer["digest"]
        assert len(content) == layer["size"]
    docker_cli.docker("rmi", "--no-prune", image)
    assert docker_cli.images_present(image) == []
    assert docker_cli.docker("pull", image).stdout.count(digest) == 1
    found = json.loads(docker_cli.docker("image", "inspect", image).stdout)[0]
    assert found["RepoDigests"] == [f"{host}/team/tandem/loadtest@{digest}"]
    assert found["Config"]["Labels"]["dev.tandem.bundle.digest"] == f"sha256:{bundle.digest}"


def tiny(image: str) -> None:
    """An image of one small file, under this name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"))
    subprocess.run(["docker", "import", "-", image], input=buffer.getvalue(), capture_output=True, check=True)


def test_a_registry_that_refuses_and_one_that_lets_in(tmp_path, monkeypatch):
    require_docker_engine()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "htpasswd").write_text(f"{HTPASSWD}\n")
    auth = {"htpasswd": {"realm": "tests", "path": str(tmp_path / "htpasswd")}}
    with registry_running(tmp_path, auth=auth) as closed:
        image = f"{closed}/team/tiny:1"
        tiny(image)
        try:
            with pytest.raises(Problem, match=rf"{closed} refuses {image}: docker login {closed}") as raised:
                registry.push(image)
            assert "no basic auth credentials" in "".join(raised.value.details)
            docker_cli.docker("login", "--username", USER, "--password", PASSWORD, closed)
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", registry.push(image).digest)
        finally:
            docker_cli.docker("rmi", image)


def test_a_registry_that_is_not_there():
    require_docker_engine()
    nowhere = f"{ports.LOOPBACK}:{ports.free(1)[0]}"
    image = f"{nowhere}/team/tiny:1"
    tiny(image)
    try:
        with pytest.raises(Problem, match=rf"{nowhere} cannot be reached: is REGISTRY={nowhere}/\.\.\. right"):
            registry.push(image)
    finally:
        docker_cli.docker("rmi", image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "push to which registry? make images push REGISTRY=registry.example.com/team"),
        (["--registry", "https://registry.example.com/team"], "use HOST/TEAM or HOST:PORT/TEAM"),
    ],
)
def test_no_registry_is_said_before_anything_is_built(arguments, message, artifacts, monkeypatch, capsys):
    monkeypatch.setattr(images, "build", lambda *_: pytest.fail("built"))
    assert serving_command_line.main(["images", "--push", "--artifacts", str(artifacts), *arguments]) == 1
    assert message in capsys.readouterr().err

"""docs/endpoints.md against real servers: each of its examples as it stands there, with its names put where the servers
of the test are; and what is said where an endpoint's certificate, token or rate is not as it should be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from loadtest.analysis import summary
from loadtest.analysis.records import AnswersUnchecked, Summary
from loadtest.experiment.records import RightAnswers
from models.bundle import Bundle
from serving.profile import ServingProfile
from serving.runtimes.process import launch
from tests.components import require
from tests.mlserver.running import mlserver
from tests.nginx import TOKEN, authority, front

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "endpoints.md").read_text()
EXAMPLES = dict(
    zip(
        ("two-torchserves", "behind-nginx", "open-inference", "http", "mixed"),
        re.findall(r"^```toml\n(.*?)^```", TEXT.partition("## Five examples")[2], re.MULTILINE | re.DOTALL),
        strict=True,
    )
)
QUICK = """
[ladder]
rates = { grpc = [40.0], rest = [40.0] }
repetitions = 1
duration_s = 1.0
lead_in_s = 0.2
[warm_up]
window_s = 0.25
min_s = 0.5
max_s = 2.0
settle_s = 0.0
min_requests = 0
tolerance = 1.0
retries = 0
"""


@dataclass(frozen=True)
class Site:
    """A folder to run in, with the authority's certificate; where the examples' names are; and the artifacts."""

    folder: Path
    places: Mapping[str, str]
    artifacts: Path

    def write(self, name: str, text: str) -> Path:
        """A file of targets or an experiment, as an example has it, at the test's own addresses."""
        for place, here in self.places.items():
            text = text.replace(place, here)
        path = self.folder / f"{name}.toml"
        path.write_text(text)
        return path

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "loadtest", *arguments, "--results", "results"]  # below the user's folder
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "MODELS_TOKEN": TOKEN, **environment}
        variables = {key: value for key, value in variables.items() if value}
        return subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, check=False)

    def measure(self, name: str) -> Summary:
        quick = self.folder / "quick.toml"
        quick.write_text('name = "quick"\nscenarios = ["ladder"]\n' + QUICK)
        done = self.run("run", "--experiment", str(quick), "--targets", str(self.write(name, EXAMPLES[name])))
        assert done.returncode == 0, done.stdout + done.stderr
        return self.latest()

    def latest(self) -> Summary:
        return summary.read(self.folder / "results" / "latest")

    def refused(self, text: str, *arguments: str, **environment: str) -> str:
        """The one line that is said instead of a run."""
        path = self.write("refused", text)
        runs = len(list((self.folder / "results").glob("2*")))
        done = self.run("run", "--experiment", "smoke", "--targets", str(path), *arguments, **environment)
        assert done.returncode == 1, done.stdout + done.stderr
        assert len(list((self.folder / "results").glob("2*"))) == runs
        (line,) = done.stderr.strip().splitlines()
        return line


def port(address: str) -> str:
    return address.rpartition(":")[2]


@pytest.fixture(scope="module")
def site(bundle: Bundle, artifacts: Path, tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    own = authority(folder)
    (folder / "our-ca.pem").write_text(own.file.read_text())
    with ExitStack() as stack:
        up = {
            name: stack.enter_context(launch.start(name, bundle, ServingProfile(), folder / name)).target
            for name in ("pytorch", "tensorflow")
        }
        certificate = own.certificate("models", "localhost")
        inside = up["tensorflow"]
        nginx = stack.enter_context(
            front(folder / "nginx", certificate, rest=inside.rest, grpc=inside.grpc, token=TOKEN)
        )
        yield Site(
            folder,
            {
                "torchserve-1.example.com:8080": up["pytorch"].rest,
                "torchserve-1.example.com:8082": urlsplit(up["pytorch"].metrics or "").netloc,
                "torchserve-2.example.com:8080": up["pytorch"].rest,
                "models.example.com:8443": f"localhost:{nginx.rest}",
                "models.example.com:9443": f"localhost:{nginx.grpc}",
                "tf-serving.example.com:8501": inside.rest,
                "tf-serving.example.com:8500": inside.grpc,
            },
            artifacts,
        )


def holds_no_secret(site: Site) -> None:
    found = [path for path in (site.folder / "results" / "latest").resolve().rglob("*") if path.is_file()]
    assert found
    assert not [path for path in found if TOKEN.encode() in path.read_bytes()]


def test_two_torchserves(site):
    found = site.measure("two-torchserves")
    assert [one.name for one in found.targets] == ["old", "new"]
    assert {one.protocol for one in found.measurements} == {"rest"}
    assert (found.parity.proven, found.parity.right, found.parity.wire_samples) == (True, RightAnswers.FIRST, 64)
    assert all(one.requests.ok == one.requests.sent > 20 for one in found.measurements)
    page = (site.folder / "results" / "latest" / "report.html").read_text()
    assert "every server answered as the first one does" in page
    require("prometheus")  # the first one's page was named, the second one's was not
    told = {one.target: one.server[0].throughput for one in found.measurements}
    assert told["old"] == pytest.approx(40.0, rel=0.5)
    assert told["new"] is None


def test_tensorflow_serving_through_nginx_with_tls_and_a_token(site):
    found = site.measure("behind-nginx")
    assert {(one.target, one.protocol) for one in found.measurements} == {
        (name, protocol) for name in ("through-nginx", "inside") for protocol in ("grpc", "rest")
    }
    assert all(one.requests.ok == one.requests.sent > 20 for one in found.measurements)
    assert found.parity.proven
    holds_no_secret(site)
    require("prometheus")  # which is given the page behind the token, and not the token
    told = [one.server[0].throughput for one in found.measurements if one.target == "through-nginx"]
    assert told == [pytest.approx(40.0, rel=0.5)] * 2
    saved = (site.folder / "results" / "latest" / "experiment.toml").read_text()
    assert 'env = "MODELS_TOKEN"' in saved
    # What was saved repeats the run.
    done = site.run("run", "--experiment", str((site.folder / "results" / "latest" / "experiment.toml").resolve()))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_of_the_open_inference_protocol(site):
    samples = site.folder / "samples"
    samples.mkdir()
    for number in range(4):
        np.save(samples / f"{number}.npy", np.full((8, 8, 1), 60 * number, np.uint8))
    with mlserver() as server:
        places = {"mlserver.example.com:8080": server.rest, "mlserver.example.com:8081": server.grpc}
        found = Site(site.folder, {**site.places, **places}, site.artifacts).measure("open-inference")
    assert {(one.target, one.protocol) for one in found.measurements} == {("mine", "grpc"), ("mine", "rest")}
    assert (found.parity.wire_samples, found.parity.proven) == (4, True)
    assert "mlserver" in (found.targets[0].engine_version or "")


def test_anything_that_takes_an_http_request(site):
    found = site.measure("http")
    assert all(one.requests.ok == one.requests.sent > 20 for one in found.measurements)
    assert not found.parity.proven
    assert found.parity.why_not_proven == (AnswersUnchecked(),)
    assert "Model parity not proven" in (site.folder / "results" / "latest" / "report.html").read_text()
    trial = next((site.folder / "results" / "latest" / "trials").glob("*/trial.json"))
    assert json.loads(trial.read_text())["checked"] == 0


def test_yours_against_tandem_s_own(site):
    path = site.write("mixed", EXAMPLES["mixed"] + QUICK.replace("grpc = [40.0], ", ""))
    done = site.run(
        *("compare", "--experiment", str(path), "--artifacts", str(site.artifacts)), "--set", 'scenarios=["ladder"]'
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = site.latest()
    assert {one.name: one.runtime for one in found.targets} == {"mine": "remote", "ours": "process"}
    assert (found.parity.proven, found.parity.right) == (True, RightAnswers.REFERENCE)
    assert all(one.requests.ok == one.requests.sent > 20 for one in found.measurements)


class TestRefused:
    """Nothing is measured, and one line says why."""

    def test_a_token_that_is_not_there_and_one_that_is_wrong(self, site):
        example = EXAMPLES["behind-nginx"]
        assert "MODELS_TOKEN, which is not set" in site.refused(example, MODELS_TOKEN="")
        line = site.refused(example, "--set", 'protocols=["rest"]', MODELS_TOKEN="another")
        assert "target.through-nginx: https://localhost" in line
        assert "HTTP 401" in line
        assert "another" not in line

    def test_a_certificate_that_is_not_trusted_or_another_s(self, site):
        example = EXAMPLES["behind-nginx"]
        line = site.refused(example.replace('tls = { ca = "our-ca.pem" }', "tls = {}"))
        assert "its certificate is not trusted" in line
        line = site.refused(example.replace('"our-ca.pem"', '"our-ca.pem", server_name = "other.example.com"'))
        assert "Hostname mismatch" in line
        assert "No such file" in site.refused(example.replace("our-ca.pem", "none.pem"))

    def test_a_model_that_is_not_there(self, site):
        line = site.refused(EXAMPLES["behind-nginx"].replace('model = "convnet"', 'model = "nobody"'))
        assert "nobody" in line

    def test_nobody_listens(self, site):
        line = site.refused(EXAMPLES["two-torchserves"].replace("torchserve-1.example.com:8080", "127.0.0.1:9"))
        assert "target.old.url: http://127.0.0.1:9: cannot be connected to (Connection refused)" in line

    def test_other_people_s_servers(self, site):
        far = EXAMPLES["two-torchserves"].replace("torchserve-1.example.com:8080", "203.0.113.7:80")
        line = site.refused(far + "[ladder]\nrates = { rest = [500.0] }\n")
        assert "asks for 500 requests/s: stay at 100, or say --i-may-load-this" in line


def test_a_server_that_fails_is_left_alone(site):
    """From the first second of load on: nginx refuses what is more than a few requests a second."""
    own, inside = authority(site.folder / "limited"), site.places["tf-serving.example.com:8501"]
    certificate = own.certificate("limited", "localhost")
    zone = {"limit_req": "zone=few burst=20 nodelay"}
    with front(
        site.folder / "limited-nginx",
        certificate,
        rest=inside,
        also=zone,
        above="limit_req_zone $server_port zone=few:1m rate=5r/s;",
    ) as limited:
        text = EXAMPLES["behind-nginx"].partition('\n[[target]]\nname = "inside"')[0]
        text = re.sub(r"grpc = .*\n|token = .*\n", "", text).replace("our-ca.pem", str(own.file))
        text = 'protocols = ["rest"]\n' + text.replace("models.example.com:8443", f"localhost:{limited.rest}")
        text += "[inputs]\nsamples = 1\n"
        quick = site.folder / "quick.toml"
        done = site.run("run", "--experiment", str(quick), "--targets", str(site.write("limited", text)))
    assert done.returncode == 1
    assert re.search(
        r"error: target.through-nginx: \d+ of the latest \d+ requests failed \(\d+ × http_503\): stopped, since "
        r"generator.stop_error_ratio = 0.5; what was measured before is kept; the first said: .*503 Service",
        done.stderr,
    ), done.stderr

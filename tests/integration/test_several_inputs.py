"""A model of two inputs and two outputs on two servers of different protocols, one of them behind TLS and a proxy that
wants a password: from .npz files to a report, with their answers compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from loadtest.analysis import summary
from loadtest.experiment.records import ProxyUsed, RightAnswers
from serving.target import Caveat
from tests.mlserver.running import mlserver
from tests.nginx import authority, front
from tests.proxy import LOGIN, tinyproxy
from tests.serving.engines.embedded_tfserving.embedded import running

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
QUICK = """
name = "quick"
scenarios = ["ladder"]
protocols = ["grpc", "rest"]
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
[inputs]
payloads = "samples"
"""
# The same as MLServer's `weighted`, for the embedded server.
SAVED = """
import sys
import tensorflow as tf
points, weight = tf.TensorSpec([None, 3], tf.float32, "points"), tf.TensorSpec([None], tf.int64, "weight")
@tf.function(input_signature=[points, weight])
def weighted(points, weight):
    scaled = points * tf.cast(weight, tf.float32)[:, None]
    return {"scaled": scaled, "total": tf.reduce_sum(scaled, axis=1)}
module = tf.Module()
module.weighted = weighted
tf.saved_model.save(module, sys.argv[1], signatures={"serving_default": weighted})
"""


@dataclass(frozen=True)
class Folder:
    """Where the user is, with the files of an experiment."""

    path: Path

    def run(self, targets: str) -> subprocess.CompletedProcess[str]:
        (self.path / "targets.toml").write_text(targets)
        command = [sys.executable, "-m", "loadtest", "run", "--experiment", "quick.toml", "--targets", "targets.toml"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROXY_LOGIN": LOGIN}
        return subprocess.run(
            [*command, "--results", str(self.path / "results")],
            cwd=self.path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


def test_two_servers_answer_alike_from_named_samples(tmp_path):
    folder = Folder(tmp_path)
    (tmp_path / "quick.toml").write_text(QUICK)
    (tmp_path / "samples").mkdir()
    np.savez(tmp_path / "samples" / "one.npz", points=[1.0, 2.0, 3.0], weight=2)
    np.savez(tmp_path / "samples" / "more.npz", points=np.arange(9.0).reshape(3, 3), weight=[-1, 0, 5])
    subprocess.run([sys.executable, "-c", SAVED, str(tmp_path / "weighted" / "1")], check=True, capture_output=True)
    own = authority(tmp_path)
    flags = ["--model_name=weighted", f"--model_base_path={tmp_path / 'weighted'}"]
    with (
        mlserver() as theirs,
        front(tmp_path / "nginx", own.certificate("m", "localhost"), rest=theirs.rest, grpc=theirs.grpc) as nginx,
        tinyproxy(tmp_path / "proxy", login=LOGIN) as proxy,
        running(tmp_path / "embedded", *flags) as ours,
    ):
        far = f'''
[[target]]
name = "far"
engine = "open-inference"
url = "https://localhost:{nginx.rest}"
grpc = "grpcs://localhost:{nginx.grpc}"
model = "weighted"
tls = {{ ca = "ca.pem" }}
proxy = "{proxy.url}"
proxy_login = {{ env = "PROXY_LOGIN" }}
output = "total"
'''
        near = f"""
[[target]]
name = "near"
engine = "tensorflow-serving"
url = "http://127.0.0.1:{ours.rest_port}"
grpc = "127.0.0.1:{ours.port}"
model = "weighted"
output = "total"
"""
        done = folder.run(far.replace('output = "total"', "") + near)
        assert re.search(r"target.far: weighted gives 2 outputs \(scaled, total\): name the one", done.stderr), (
            done.stderr
        )
        done = folder.run(far + near.replace('output = "total"', 'output = "scaled"'))
        assert "target.near: its answers over grpc have 3 values, not 1" in done.stderr
        done = folder.run(far + near)
        assert done.returncode == 0, done.stdout + done.stderr
        said = proxy.asked()
    assert f"CONNECT localhost:{nginx.rest}" in said
    assert f"CONNECT localhost:{nginx.grpc}" in said
    found = summary.read(tmp_path / "results" / "latest")
    assert (found.parity.proven, found.parity.right, found.parity.wire_samples) == (True, RightAnswers.FIRST, 4)
    assert {(one.target, one.protocol) for one in found.measurements} == {
        (name, protocol) for name in ("far", "near") for protocol in ("grpc", "rest")
    }
    assert all(one.requests.ok == one.requests.sent > 20 for one in found.measurements)
    assert [Caveat.PROXY in one.caveats for one in found.targets] == [True, False]
    assert [one.output for one in found.targets] == ["total", "total"]
    assert ProxyUsed(proxy=proxy.url, targets=["far"]) in found.environment.warnings
    told = (tmp_path / "results" / "latest" / "report.md").read_text()
    assert f"far: through {proxy.url}" in told
    files = [path for path in (tmp_path / "results").rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    assert not [path for path in files if LOGIN.encode() in path.read_bytes()]

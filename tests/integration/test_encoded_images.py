"""JPEG files from a user's folder to a report, on both servers; and what the servers answer to bad ones."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtest.analysis import summary
from models import bundle as bundles
from models.encoding import Encoding
from serving import requests, serve
from serving.client import Client, RequestFailed
from serving.engines import registry
from serving.profile import ServingProfile
from tests.models import own_package
from tests.models.test_encoded_images import REFUSED, photo

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = """
name = "files"
dataset = "digits"
scenarios = ["ladder"]
encoding = "jpeg"
ladder = { rates = { grpc = [60.0], rest = [60.0] }, repetitions = 1, duration_s = 1.0, lead_in_s = 0.25 }
[preprocessing]
preset = "-1-1"
[warm_up]
window_s = 0.25
min_s = 0.5
max_s = 2.0
settle_s = 0.0
min_requests = 0
tolerance = 0.5
"""


def photos(folder: Path, count: int) -> None:
    """As cameras, web sites and scanners write them, of odd sizes."""
    folder.mkdir()
    for number in range(count):
        picture = Image.fromarray(photo(60 + 7 * number, 50 + 11 * number, number))
        mode, subsampling = "L" if number % 5 == 0 else "RGB", ("4:4:4", "4:2:2", "4:2:0")[number % 3]
        file = folder / f"{number}.jpg"
        picture.convert(mode).save(file, quality=85, subsampling=subsampling, progressive=number % 4 == 0)


def test_files_come_to_a_report_and_bad_ones_to_an_error(tmp_path):
    photos(tmp_path / "photos", 20)
    model = own_package.write(tmp_path / "project", "shopnets")
    (tmp_path / "files.toml").write_text(EXPERIMENT)
    command = [sys.executable, "-m", "loadtest", "compare", "--experiment", str(tmp_path / "files.toml")]
    command += ["--model", model, "--input", "33x47x1", "--images", str(tmp_path / "photos")]
    command += ["--artifacts", str(tmp_path / "artifacts"), "--results", str(tmp_path / "results")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "project")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    bundle = bundles.load(tmp_path / "artifacts" / "small" / "1")
    assert bundle.encoding is Encoding.JPEG
    decoded = bundle.manifest["parity"]["exports"]["savedmodel_encoded"]
    assert decoded["max_abs_diff"] < 1e-5  # the decoders agree bit for bit
    results = tmp_path / "results" / "latest"
    figures = summary.read(results)
    assert figures.parity.proven
    assert figures.encoded is not None
    assert (figures.encoded.format, figures.encoded.quality) == (Encoding.JPEG, None)
    served = [found for protocols in figures.parity.wire.values() for found in protocols.values()]
    assert len(served) == 4
    for found in served:
        assert (found.max_abs_diff or 0.0) < 1e-4
        assert (found.bytes_an_image or 0.0) > figures.encoded.bytes.mean
    assert all(item.error_ratio == 0 for item in figures.measurements)  # valid or not, on a machine that others use
    times = json.loads((results / "model-time.json").read_text()).values()
    assert all(0 < one["decoding_ms"]["1"] < 1000 for one in times)
    assert "Images: JPEG files of" in (results / "report.md").read_text()

    profile, folder = ServingProfile(), tmp_path / "servers"
    with np.load(bundle.reference) as reference:
        content = reference["encoded"][: reference["offsets"][1]].tobytes()
        expected = reference["probabilities"][:1]
    with serve.started(bundle, profile, folder, targets=registry.DEFAULT_TARGETS) as running:
        for one in running:
            with Client(one.target) as client:
                for protocol in ("grpc", "rest"):
                    for name in ("CMYK", "16 bits", "turned", "truncated JPEG", "text"):
                        with pytest.raises(RequestFailed, match=r"400|INVALID_ARGUMENT|BadRequest"):
                            client.predict(protocol, np.array([REFUSED[name][0]], object))
                    answer = client.predict(protocol, np.array([content], object))
                    np.testing.assert_allclose(answer, expected, atol=1e-4)
                    png = io.BytesIO()
                    Image.open(io.BytesIO(content)).save(png, "PNG")
                    answer = client.predict(protocol, np.array([png.getvalue()], object))
                    np.testing.assert_allclose(answer, expected, atol=1e-4)
            with pytest.raises(ValueError, match="takes jpeg files"):
                requests.encode(one.target, "grpc", np.zeros((1, 33, 47, 1), np.uint8))

from __future__ import annotations

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import numpy as np
import pytest

from models.problem import Problem
from serving import batch_sizes, wire_parity
from serving.client import Client, RequestFailed
from serving.engines import gpu
from serving.engines.engine import Knob, KnobKind
from serving.target import Target
from tests.serving.targets import target

SHAPE = (2, 2, 3)
IMAGES = np.random.default_rng(4).integers(0, 256, (70, *SHAPE), dtype=np.uint8)


def probabilities(images: np.ndarray) -> np.ndarray:
    sums = images.astype(np.float64).sum(axis=(1, 2))
    return (sums / sums.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def server():
    """A server of TorchServe's raw REST protocol that answers right, but for what `spoil` does to the answer."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            images = np.frombuffer(body, np.uint8).reshape(-1, *SHAPE)
            http.seen.append(len(images))
            status, answer = http.spoil(images, probabilities(images))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    class Server(HTTPServer):
        seen: list[int] = []  # noqa: RUF012  one server a test
        spoil = staticmethod(lambda images, answer: (200, answer.tobytes()))

    with Server(("127.0.0.1", 0), Handler) as http:
        http.seen = []
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield http
        http.shutdown()
        thread.join()


def to(server, **changes) -> Target:
    values = target("pytorch", shape=SHAPE, classes=3).to_dict()
    return Target.from_dict({**values, "rest": f"127.0.0.1:{server.server_port}", **changes})


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "reference.npz"
    np.savez(path, images=IMAGES, labels=np.zeros(len(IMAGES), np.int64), probabilities=probabilities(IMAGES))
    return path


def test_every_sample_is_sent_once_in_batches_that_the_server_takes(server, reference):
    figures = wire_parity.check(to(server, max_batch_size=16), reference, protocols=["rest-binary"])
    found = figures["rest-binary"]
    assert (found.max_abs_diff, found.top1_agreement, found.samples) == (0.0, 1.0, 70)
    assert found.disagreements == ()
    assert server.seen == [16, 16, 16, 16, 6]


def test_a_wrong_answer_names_target_protocol_and_first_sample(server, reference):
    def swap(images, answer):
        spoiled = answer.copy()
        spoiled[np.all(images == IMAGES[41], axis=(1, 2, 3))] = [0, 0, 1]
        return 200, spoiled.tobytes()

    server.spoil = swap
    with pytest.raises(Problem, match=r"pytorch \(torchserve\) over rest-binary: sample 41 differs .* 1 of 70 samples"):
        wire_parity.check(to(server), reference, protocols=["rest-binary"])


def test_a_refusal_names_where_and_why(server, reference):
    server.spoil = lambda images, answer: (503, b"no workers")
    with pytest.raises(Problem, match="samples from 0 were not answered: HTTP 503: no workers"):
        wire_parity.check(to(server), reference, protocols=["rest-binary"])


def test_a_missing_row_is_found(server, reference):
    server.spoil = lambda images, answer: (200, answer[:-1].tobytes())
    with pytest.raises(Problem, match=r"samples from 0 got \(31, 3\), not \(32, 3\)"):
        wire_parity.check(to(server), reference, protocols=["rest-binary"])


def test_a_dead_server_is_a_failed_request(server):
    dead = to(server, rest="127.0.0.1:1", grpc="127.0.0.1:1")
    with Client(dead, timeout_s=2) as client:
        with pytest.raises(RequestFailed, match="ConnectionRefusedError"):
            client.predict("rest", IMAGES[:1])
        with pytest.raises(RequestFailed, match="UNAVAILABLE"):
            client.predict("grpc", IMAGES[:1])


def test_a_differing_best_class_counts_only_where_the_two_best_are_apart():
    expected = np.array([[0.50002, 0.49998, 0.0]], np.float32)
    near = np.array([[0.49998, 0.50002, 0.0]], np.float32)
    figures = wire_parity.compare(expected, near, "x")
    assert figures.top1_agreement == 0.0
    assert figures.max_abs_diff == pytest.approx(4e-5, rel=0.01)
    apart, swapped = np.array([[0.6, 0.4]], np.float32), np.array([[0.49, 0.51]], np.float32)
    with pytest.raises(Problem, match="x: sample 0"):
        wire_parity.compare(apart, swapped, "x", tolerance=0.15)


def test_nan_is_out_of_tolerance():
    expected = np.array([[0.6, 0.4]], np.float32)
    with pytest.raises(Problem, match="sample 0"):
        wire_parity.compare(expected, np.full_like(expected, np.nan), "x")


def test_its_keys_in_wire_parity_json():
    found = wire_parity.Agreement(
        max_abs_diff=1e-7,
        top1_agreement=1.0,
        samples=70,
        disagreements=((3, 5, 2),),
        examples={12: (3, 0.75)},
        bytes_an_image=3072.5,
    )
    figures = {
        "max_abs_diff": 1e-7,
        "top1_agreement": 1.0,
        "samples": 70,
        "disagreements": [[3, 5, 2]],
        "examples": {"12": [3, 0.75]},
        "bytes_an_image": 3072.5,
    }
    plain = json.loads(json.dumps(msgspec.to_builtins(found, str_keys=True)))
    assert plain == figures
    assert msgspec.convert(plain, wire_parity.Agreement, strict=False) == found


def test_classes_that_differ_are_counted_by_pair():
    """A tie may be broken either way: within tolerance, but worth showing."""
    expected = np.array([[0.5, 0.5 - 1e-6, 0], [0.5, 0.5 - 1e-6, 0], [0.1, 0.9, 0]], np.float32)
    answers = expected.copy()
    answers[:2, 1] = 0.5 + 1e-6
    assert wire_parity.compare(expected, answers, "here").disagreements == ((0, 1, 2),)


def test_examples_are_the_closest_calls_and_some_of_all_and_keep_their_images(reference, tmp_path):
    expected = probabilities(IMAGES)
    chosen = wire_parity.examples(expected)
    gap = np.diff(np.sort(expected, axis=1)[:, -2:]).ravel()
    assert set(np.argsort(gap)[:5]) == set(chosen[:5])
    assert len(set(chosen)) == 10
    wire_parity.save_examples(reference, tmp_path / "wire-samples.npz")
    with np.load(tmp_path / "wire-samples.npz") as saved:
        assert saved["indices"].tolist() == chosen
        assert np.array_equal(saved["images"], IMAGES[chosen])
    answered = wire_parity.compare(expected, expected, "here").examples
    assert answered[chosen[0]] == (int(expected[chosen[0]].argmax()), pytest.approx(expected[chosen[0]].max()))


def on_a_gpu(server, **changes) -> Target:
    return replace(to(server, **changes), knobs=(Knob(gpu.AUTOTUNE, "", None, kind=KnobKind.NO_COUNTERPART),))


def test_a_server_on_a_gpu_is_asked_for_every_batch_size_alone_and_one_on_the_cpu_for_none(server, reference):
    batch_sizes.touch(to(server, max_batch_size=5), reference, "rest-binary")
    assert server.seen == []
    batch_sizes.touch(on_a_gpu(server, max_batch_size=5), reference, "rest-binary")
    assert server.seen == [5, 4, 3, 2, 1]
    server.seen.clear()
    batch_sizes.touch(on_a_gpu(server, max_batch_size=72), reference, "rest-binary")  # more than there are images
    assert server.seen[:3] == [72, 71, 70]


def test_a_batch_size_that_it_cannot_compute_is_named(server, reference):
    server.spoil = lambda images, answer: (507, b"out of memory") if len(images) > 3 else (200, answer.tobytes())
    with pytest.raises(Problem, match="pytorch: a batch of 5 over rest-binary was not answered: HTTP 507: out of mem"):
        batch_sizes.touch(on_a_gpu(server, max_batch_size=5), reference, "rest-binary")

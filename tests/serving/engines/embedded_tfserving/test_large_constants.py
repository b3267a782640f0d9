"""Weights that are constants of the graph: held once for all signatures and batches, and computed with as before."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from serving.engines.embedded_tfserving import large_constants
from serving.engines.embedded_tfserving.flags import Flags
from serving.engines.embedded_tfserving.servable import Servable
from serving.engines.embedded_tfserving.status import ServingError
from tests.serving.engines.embedded_tfserving.embedded import Embedded, running

BATCHING = "max_batch_size { value: 8 } batch_timeout_micros { value: 1000 } num_batch_threads { value: 4 }"
SIDE = 16
IMAGES = np.random.default_rng(1).integers(0, 256, (24, SIDE, SIDE, 3), np.uint8)


def save(folder: Path, width: int) -> Path:
    """A convolution and two dense layers of `width`, whose weights are constants, with signatures as Tandem exports
    them: images, or strings of their bytes."""
    random = np.random.default_rng(0)
    kernel = random.normal(0, 0.1, (3, 3, 3, 16)).astype("f")
    hidden = random.normal(0, 0.01, (SIDE * SIDE * 16, width)).astype("f")
    last = random.normal(0, 0.1, (width, 10)).astype("f")

    @tf.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.uint8, "images")], autograph=False)
    def network(images):
        images = tf.ensure_shape(images, [None, SIDE, SIDE, 3])
        x = tf.nn.relu(tf.nn.conv2d(tf.cast(images, tf.float32) / 255, tf.constant(kernel), 1, "SAME"))
        x = tf.nn.relu(tf.reshape(x, [-1, SIDE * SIDE * 16]) @ tf.constant(hidden))
        return {"probabilities": tf.nn.softmax(x @ tf.constant(last))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")], autograph=False)
    def on_bytes(image_bytes):
        right = tf.debugging.Assert(tf.reduce_all(tf.strings.length(image_bytes) == SIDE * SIDE * 3), [0])
        with tf.control_dependencies([right]):
            pixels = tf.io.decode_raw(image_bytes, tf.uint8)
        return network(tf.reshape(pixels, [-1, SIDE, SIDE, 3]))

    module = tf.Module()
    module.network = network.get_concrete_function()
    signatures = {"serving_default": module.network, "bytes": on_bytes.get_concrete_function()}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """1 MB of weights."""
    return save(tmp_path_factory.mktemp("small") / "network" / "1", 64)


@pytest.fixture(scope="module")
def expected(small: Path) -> np.ndarray:
    """What TensorFlow itself makes of the images."""
    loaded = tf.saved_model.load(str(small))
    answers: np.ndarray = loaded.signatures["serving_default"](images=tf.constant(IMAGES))["probabilities"].numpy()
    return answers


@pytest.fixture
def taken_out(small: Path, monkeypatch) -> Servable:
    """The small model, its weights taken for large."""
    monkeypatch.setattr(large_constants, "LARGE_BYTES", 2**20)
    servable = Servable("network", 1, small, Flags())
    assert len(servable.networks) == 1
    return servable


def test_every_signature_answers_as_before(taken_out: Servable, small: Path, expected: np.ndarray):
    signatures = taken_out.signatures
    (answers,) = taken_out.run(signatures["serving_default"], [IMAGES])
    np.testing.assert_allclose(answers, expected, atol=1e-6)
    (answers,) = taken_out.run(signatures["bytes"], [np.array([image.tobytes() for image in IMAGES], object)])
    np.testing.assert_allclose(answers, expected, atol=1e-6)
    (answers,) = taken_out.run(signatures["serving_default"], [IMAGES[:0]])
    assert answers.shape == (0, 10)
    before = Servable("network", 1, small, Flags())
    assert {network.name for network in taken_out.networks}.isdisjoint(before.graph._functions)
    assert taken_out.operations == before.operations >= {"Conv2D", "MatMul", "DecodeRaw"}


def test_no_weights_are_left_in_the_graph_that_signatures_share(taken_out: Servable):
    assert taken_out.graph.as_graph_def().ByteSize() < 20_000


def test_errors_are_those_of_the_network(taken_out: Servable, small: Path, monkeypatch):
    monkeypatch.undo()
    wrong = [IMAGES[:2, :8]]
    errors = []
    for servable in (taken_out, Servable("network", 1, small, Flags())):
        assert bool(servable.networks) == (servable is taken_out)
        with pytest.raises(ServingError) as refused:
            servable.run(servable.signatures["serving_default"], wrong)
        message = re.sub(r"_arg_\w+|\s*\[\[.*", "", refused.value.message)  # its input has another name
        errors.append((refused.value.code, message))
    assert errors[0] == errors[1]
    assert "[2,8,16,3]" in errors[0][1]


def test_a_function_with_state_stays_and_one_in_a_branch_is_called_there(tmp_path: Path, monkeypatch):
    weights = np.ones((1000, 1000), "f")

    @tf.function(input_signature=[tf.TensorSpec([None, 1000], tf.float32, "x")], autograph=False)
    def branch(x):
        return x @ tf.constant(weights)

    @tf.function(input_signature=[tf.TensorSpec([None, 1000], tf.float32, "x")], autograph=False)
    def either(x):
        return {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: branch(x), lambda: x)}

    @tf.function(input_signature=[tf.TensorSpec([None, 1000], tf.float32, "x")], autograph=False)
    def random(x):
        return {"y": x @ tf.constant(weights) + tf.random.uniform([])}

    monkeypatch.setattr(large_constants, "LARGE_BYTES", 2**20)
    module = tf.Module()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": either, "random": random})
    servable = Servable("odd", 1, tmp_path / "1", Flags())
    assert len(servable.networks) == 1
    ones = [np.ones((2, 1000), "f")]
    assert servable.run(servable.signatures["serving_default"], ones)[0].tolist() == [[1000.0] * 1000] * 2
    assert 1000 <= servable.run(servable.signatures["random"], ones)[0][0, 0] <= 1001


def test_memory_grows_by_few_times_the_weights(batching_server: Embedded, tmp_path: Path):
    """Beside a server on another model. Of 0.5 GB of weights, 14 GB became before they were shared."""
    width = 4096
    weights = SIDE * SIDE * 16 * width * 4
    save(tmp_path / "network" / "1", width)
    parameters = tmp_path / "batching.txt"
    parameters.write_text(BATCHING)
    flags = ["--model_name=network", f"--model_base_path={tmp_path / 'network'}", "--tensorflow_inter_op_parallelism=2"]
    flags += ["--enable_batching", f"--batching_parameters_file={parameters}"]
    with running(tmp_path, *flags) as server:
        with ThreadPoolExecutor(16) as pool:  # more at once than there are threads
            answers = list(pool.map(lambda n: _ask(server, IMAGES[n : n + 1]), range(len(IMAGES))))
        batches = [_ask(server, IMAGES[start : start + 8]) for start in range(0, len(IMAGES), 8)]
        np.testing.assert_allclose(np.concatenate(answers), np.concatenate(batches), atol=1e-6)
        held, peak = (_kib(server, key) - _kib(batching_server, "VmRSS") for key in ("VmRSS", "VmHWM"))
    print(f"held {held * 1024 / weights:.1f}, peak {peak * 1024 / weights:.1f} times the weights")
    assert held * 1024 < 6 * weights
    assert peak * 1024 < 14 * weights  # while it is loaded


def _ask(server: Embedded, images: np.ndarray) -> np.ndarray:
    output = server.predict("network", {"images": images}).outputs["probabilities"]
    return np.array(output.float_val).reshape([dim.size for dim in output.tensor_shape.dim])


def _kib(server: Embedded, key: str) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split(f"{key}:")[1].split()[0])

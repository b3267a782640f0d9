"""A SavedModel that the user brings: the same model or not, and why; what cannot be served is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import onnx_export, own_files, parity, savedmodel, torchscript, training
from models.bundle import Around, Bundle
from models.own_savedmodel import OwnSavedModel
from models.precision import Precision
from models.problem import Problem
from models.progress import Progress
from models.tensorflow_quietly import tf
from tests.models import keras_port

pytestmark = [pytest.mark.slow, pytest.mark.beside]

IMAGES = keras_port.images()
NAMES = [f"class {number}" for number in range(keras_port.CLASSES)]
FLOATS = tf.TensorSpec([None, 32, 32, 3], tf.float32, "x")


@pytest.fixture(scope="module")
def side():
    """The PyTorch side."""
    return keras_port.classifier()


@pytest.fixture(scope="module")
def expected(side):
    """Its probabilities for `IMAGES`."""
    found = training.predict(side, IMAGES)
    assert len(set(found.argmax(axis=1))) >= 3  # agreement says something
    return found


@pytest.fixture(scope="module")
def exports(side, tmp_path_factory):
    """A bundle's folder with the exports that the gate looks at, but for the SavedModel."""
    folder = tmp_path_factory.mktemp("exports")
    bundle = Bundle(folder, {})
    torchscript.export(side, bundle.torchscript)
    onnx_export.export(side, bundle.onnx)
    return folder


@pytest.fixture
def gate(side, expected, exports, tmp_path):
    """Puts a SavedModel into a bundle of its own and runs the gate; returns the bundle, what it found, and the fit."""

    def run(folder):
        shutil.copytree(exports, tmp_path / "bundle")
        manifest = {"model": "port", "version": 1, "dataset": {"class_names": NAMES}}
        bundle = Bundle(tmp_path / "bundle", manifest)
        own = OwnSavedModel(own_files.savedmodel(folder), IMAGES, keras_port.CLASSES)
        fit = own.fit(expected, side, Precision.FP32.tolerance, bundle.onnx)
        own.write(fit, bundle.savedmodel / "1")
        manifest["own_files"] = {"savedmodel": own.record(fit)}
        labels = expected.argmax(axis=1)
        figures = parity.check(bundle, side, IMAGES, labels, expected, Progress())
        return bundle, figures["exports"]["savedmodel"], fit

    return run


def test_a_faithful_keras_port_passes_the_gate(gate, side, tmp_path):
    # TensorFlow's "same" is PyTorch's padding=1 where the stride is 1.
    same = ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv2"]
    bundle, figures, fit = gate(keras_port.export(tmp_path / "port", side, same=same))
    assert figures["max_abs_diff"] < 1e-5
    assert figures["top1_agreement"] == 1.0
    assert fit.around == (Around.RENAMED, Around.CAST)
    record = bundle.own_files["savedmodel"]
    assert record["name"] == "port"
    assert record["around"] == ["renamed", "cast"]
    assert set(record["sha256"]) >= {"saved_model.pb", "variables/variables.index"}
    served = bundle.savedmodel / "1"
    assert (served / "variables" / "variables.index").is_file()  # weights stay variables, as the user's are
    on_bytes = savedmodel.load(served, savedmodel.BYTES_SIGNATURE)
    encoded = np.array([image.tobytes() for image in IMAGES[:3]], dtype=object)
    np.testing.assert_allclose(on_bytes(encoded), savedmodel.load(served)(IMAGES[:3]), atol=1e-6)


def test_a_port_with_one_padding_wrong_is_told_which_layer(gate, side, tmp_path):
    with pytest.raises(Problem) as raised:
        gate(keras_port.export(tmp_path / "port", side, same=["layer2.0.conv1"]))
    line = str(raised.value)
    assert "SAVEDMODEL=port is not the model of the PyTorch side: " in line
    assert ": layer network.layer2.0.conv1 with network.layer2.0.bn1, node " in line
    assert "(Conv) is the first to differ" in line
    closest = line.partition("in the closest tensor, ")[2].partition(";")[0]
    assert closest.startswith("functional")
    assert "/layer2_0_conv1" in closest
    assert "pixels 0-255" not in line


def test_so_is_one_that_wants_its_pixels_scaled_besides(gate, side, tmp_path):
    with pytest.raises(Problem, match=r": layer network\.layer2\.0\.conv1 with .*/layer2_0_conv1") as raised:
        gate(keras_port.export(tmp_path / "port", side, same=["layer2.0.conv1"], scaled=False, softmax=False))
    assert "pixels 0-255" not in str(raised.value)


def test_a_port_for_bgr_images_is_told_so(gate, side, tmp_path):
    with pytest.raises(Problem, match=r"red and blue change places: it is for BGR .*x\[\.\.\., ::-1\]"):
        gate(keras_port.export(tmp_path / "port", side, bgr=True))


def test_classes_in_another_order_are_told(gate, side, tmp_path):
    with pytest.raises(Problem, match=r"another order \(3 of 5\): its class 1 is class 2, class 2 of the other side"):
        gate(keras_port.export(tmp_path / "port", side, order=[0, 2, 4, 3, 1]))


def test_a_port_to_logits_without_its_normalisation_gets_both(gate, side, tmp_path):
    bundle, figures, fit = gate(keras_port.export(tmp_path / "port", side, scaled=False, softmax=False))
    assert figures["max_abs_diff"] < 1e-5
    assert fit.around == (Around.RENAMED, Around.CAST, Around.NORMALISED, Around.SOFTMAX)
    assert bundle.own_files["savedmodel"]["scaling"] == {"mean": keras_port.MEAN, "std": keras_port.STD, "bgr": False}


def test_a_port_that_speaks_the_wire_is_served_as_it_is(gate, side, tmp_path):
    keras_model = keras_port.model(side.network.state_dict())
    module = tf.Module()
    module.keras = keras_model

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.uint8, "images")])
    def serve(images):
        return {"probabilities": keras_model(tf.cast(images, tf.float32), training=False)}

    tf.saved_model.save(module, str(tmp_path / "port"), signatures=serve)
    (tmp_path / "port" / "notes.txt").write_text("mine")
    bundle, figures, fit = gate(tmp_path / "port")
    assert fit.around == ()
    assert figures["max_abs_diff"] < 1e-5
    assert own_files.hashes(bundle.savedmodel / "1") == own_files.hashes(tmp_path / "port")
    assert fit.words() == "served as it is"


def _save(folder: Path, function, *specs, constants=()) -> Path:
    """A SavedModel of one function, whose variables or tables are the ``constants``."""
    module = tf.Module()
    module.held = list(constants)
    tf.saved_model.save(module, str(folder), signatures=tf.function(function, input_signature=specs or [FLOATS]))
    return folder


def _scores(x, classes=5):
    return tf.repeat(tf.reduce_mean(tf.cast(x, tf.float32), [1, 2, 3])[:, None], classes, axis=1)


def _counting(counter):
    def function(x):
        counter.assign_add(1.0)
        return _scores(x) + counter

    return function


def _two_inputs(folder):
    return _save(folder, lambda x, y: _scores(x) + _scores(y), FLOATS, tf.TensorSpec([None, 32, 32, 3], name="y"))


def _no_signature(folder):
    tf.saved_model.save(tf.Module(), str(folder))


def _with_state(folder):
    counter = tf.Variable(0.0)
    _save(folder, _counting(counter), constants=[counter])


def _with_nan(folder):
    scale = tf.Variable([1.0, np.nan, 1.0, 1.0, 1.0], name="scale")
    _save(folder, lambda x: _scores(x) * scale, constants=[scale])


def _with_python(folder):
    _save(folder, lambda x: tf.ensure_shape(tf.numpy_function(np.asarray, [_scores(x)], tf.float32), [None, 5]))


def _spec(*sizes, dtype=tf.float32):
    return tf.TensorSpec(sizes, dtype, "x")


REFUSED = {
    "no signature": (_no_signature, "no signature serving_default; write one with model.export"),
    "two inputs": (_two_inputs, r"serving_default has 2 inputs \(x, y\); export a signature with one input"),
    "two outputs": (
        lambda folder: _save(folder, lambda x: {"scores": _scores(x), "best": tf.argmax(_scores(x), 1)}),
        r"serving_default has 2 outputs \(best, scores\); export a signature with one output",
    ),
    "strings": (
        lambda folder: _save(
            folder, lambda x: _scores(tf.io.decode_raw(x, tf.uint8)[:, None, None]), _spec(None, dtype=tf.string)
        ),
        "input x takes strings",
    ),
    "another size": (
        lambda folder: _save(folder, _scores, _spec(None, 33, 47, 3)),
        r"input x is \[\?, 33, 47, 3\], and the model's images are \[N, 32, 32, 3\]",
    ),
    "a fixed batch": (lambda folder: _save(folder, _scores, _spec(1, 32, 32, 3)), "takes batches of 1 alone"),
    "other classes": (
        lambda folder: _save(folder, lambda x: _scores(x, 7)),
        "output output_0 has 7 classes, and the PyTorch side has 5",
    ),
    "rank 4": (
        lambda folder: _save(folder, lambda x: _scores(x)[:, None, None]),
        r"output output_0 is \[\?, 1, 1, 5\]; export one float tensor \[N, classes\]",
    ),
    "integers": (lambda folder: _save(folder, lambda x: tf.cast(_scores(x), tf.int32)), "output output_0 is int32"),
    "state": (_with_state, "gives two answers to the same images: it keeps state"),
    "batch statistics": (
        lambda folder: _save(folder, lambda x: _scores(x) - tf.reduce_mean(_scores(x))),
        "depends on the other images of its batch, as batch normalisation in training mode",
    ),
    "NaN in a variable": (_with_nan, "variable held/0 holds NaN"),
    "NaN in a constant": (
        lambda folder: _save(folder, lambda x: _scores(x) * tf.constant([1.0, 1.0, np.nan, 1.0, 1.0], name="scale")),
        "constant scale holds NaN",
    ),
    "NaN in answers": (lambda folder: _save(folder, lambda x: tf.math.log(_scores(x) - 1e9)), "answers NaN"),
    "Python": (_with_python, r"\(PyFunc\) reads or writes files, or calls Python"),
    "files": (
        lambda folder: _save(
            folder, lambda x: _scores(x) + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)
        ),
        r"\(ReadFile\) reads or writes files",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_in_one_line(name, tmp_path):
    write, message = REFUSED[name]
    write(tmp_path / "port")
    with pytest.raises(Problem, match=message) as raised:
        OwnSavedModel(own_files.savedmodel(tmp_path / "port"), IMAGES, 5)
    assert str(raised.value).startswith(f"SAVEDMODEL={tmp_path / 'port'}: ")


def test_channels_first_and_half_precision_are_bridged(tmp_path, side, exports):
    folder = _save(
        tmp_path / "port",
        lambda x: tf.cast(_scores(x) * tf.constant([0.1, 0.2, 0.3, 0.4, 0.5]), tf.float16),
        _spec(None, 3, 32, 32, dtype=tf.float16),
    )
    own = OwnSavedModel(own_files.savedmodel(folder), IMAGES, 5)
    fit = own.fit(np.full((len(IMAGES), 5), 0.2, np.float32), side, 1e-4, Bundle(exports, {}).onnx)
    assert fit.around == (Around.RENAMED, Around.CAST, Around.TRANSPOSED, Around.SOFTMAX)
    own.write(fit, tmp_path / "served")
    answers = savedmodel.load(tmp_path / "served")(IMAGES)
    assert answers.dtype == np.float32
    assert answers.shape == (len(IMAGES), 5)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)


def test_a_folder_that_changes_meanwhile_is_refused(side, tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.uint8, "images")])
    def serve(images):
        return {"probabilities": tf.nn.softmax(_scores(images))}

    tf.saved_model.save(tf.Module(), str(tmp_path / "port"), signatures=serve)
    own = OwnSavedModel(own_files.savedmodel(tmp_path / "port"), IMAGES, 5)
    (tmp_path / "port" / "variables" / "variables.index").write_bytes(b"other")
    with pytest.raises(Problem, match="changed while it was read"):
        own.write(own.fit(np.full((len(IMAGES), 5), 0.2), side, 1e-4, tmp_path), tmp_path / "served")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A SavedModel with a variable."""
    scale = tf.Variable(tf.ones([5]))
    return _save(tmp_path_factory.mktemp("small") / "port", lambda x: _scores(x) * scale, constants=[scale])


@settings(max_examples=10, deadline=None)
@given(name=st.sampled_from(["saved_model.pb", "variables/variables.index"]), share=st.floats(0, 0.99))
def test_a_truncated_savedmodel_is_refused_in_one_line(small, tmp_path_factory, name, share):
    folder = tmp_path_factory.mktemp("cut") / "port"
    shutil.copytree(small, folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(Problem, match=r"^SAVEDMODEL=.*port: .*; "):
        OwnSavedModel(own_files.savedmodel(folder), IMAGES, 5)

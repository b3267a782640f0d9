"""What endpoints are asked: files as the input has them, or random samples of its type and shape."""

from __future__ import annotations

import codecs
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from loadtest.experiment import inputs, right_answers
from loadtest.experiment.runtimes import endpoint
from loadtest.experiment.settings import Inputs
from loadtest.generator.answers import Payloads, Reference
from models.problem import Problem
from serving import reference_file
from serving.engines.engine import Tensor
from serving.reference_file import Samples
from serving.target import Target
from tests.loadtest.generator.small_servers import small_server
from tests.serving.targets import target


def taking(datatype: str, *shape: int, given: tuple[int, ...] = ()) -> Target:
    found = replace(target("tensorflow"), inputs=(Tensor("x", datatype, shape),), input_shape=given, classes=0)
    return inputs.alike([found])[0]


@pytest.mark.parametrize(
    ("shape", "given", "sample"),
    [
        ((-1, 224, 224, 3), (), (224, 224, 3)),
        ((1, 4), (), (4,)),
        ((784,), (), (784,)),
        ((-1, -1, -1, 3), (), ()),
        ((-1, -1, -1, 3), (32, 32, 3), (32, 32, 3)),
        ((-1,), (), ()),
        ((3, 4), (3, 4), (3, 4)),
        ((), (7,), (7,)),
    ],
)
def test_the_shape_of_one_sample(shape, given, sample):
    assert taking("float32", *shape, given=given).input_shape == sample


def test_a_shape_that_the_server_does_not_take_is_refused():
    with pytest.raises(Problem, match=r"target.tensorflow.input_shape = \[3, 3\]: its input x is \[-1, 4\]"):
        taking("float32", -1, 4, given=(3, 3))


def test_servers_that_take_different_samples_are_not_compared():
    one, other = (replace(target(name), inputs=(), input_shape=shape) for name, shape in BOTH)
    with pytest.raises(Problem, match=r"target.tensorflow: takes samples of shape \[4\], and pytorch of \[3\]"):
        inputs.alike([one, other])


BOTH = (("pytorch", (3,)), ("tensorflow", (4,)))


def test_a_server_that_does_not_say_is_asked_as_the_first_one_that_does():
    silent = replace(target("pytorch"), input_shape=())
    says = replace(target("tensorflow"), inputs=(Tensor("x", "float32", (-1, 4)),), input_shape=())
    first, second = inputs.alike([silent, says])
    assert first.inputs == second.inputs == says.inputs
    assert first.input_shape == second.input_shape == (4,)


@pytest.mark.parametrize("datatype", ["uint8", "int8", "int32", "int64", "float32", "float16", "float64", "bool"])
def test_random_samples_are_of_the_type_within_its_range_and_the_same_for_the_same_seed(datatype):
    asked = taking(datatype, -1, 6)
    found = inputs.load(Inputs(samples=50), asked, seed=3).images
    assert (found.shape, found.dtype.name) == ((50, 6), datatype)
    np.testing.assert_array_equal(found, inputs.load(Inputs(samples=50), asked, seed=3).images)
    assert (found != inputs.load(Inputs(samples=50), asked, seed=4).images).any()
    low, high = {"int8": (-128, 127), "bool": (0, 1)}.get(datatype, (0, 1 if found.dtype.kind == "f" else 255))
    assert low <= found.min() < found.max() <= high


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (taking("bytes", -1, 1), "takes strings or encoded images, as x: name files"),
        (taking("float32", -1, -1), r"what shape is a sample \(its input x is \[-1, -1\]\)\? Give input_shape"),
        (replace(target("pytorch"), input_shape=()), r"what shape is a sample \(its server does not say\)"),
    ],
)
def test_what_cannot_be_made_up_is_asked_for(asked, says):
    with pytest.raises(Problem, match=says):
        inputs.load(Inputs(), asked, 0)


def picture(folder: Path, name: str = "a.png") -> Path:
    folder.mkdir(exist_ok=True)
    pixels = np.zeros((8, 6, 3), np.uint8)
    pixels[..., 0] = 255
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def load(place: Path, asked: Target) -> Samples:
    return inputs.load(Inputs(payloads=str(place)), asked, 0)


def test_images_are_decoded_to_the_input_s_shape_and_type(tmp_path):
    picture(tmp_path)
    as_bytes = load(tmp_path, taking("uint8", -1, 4, 2, 3)).images
    assert (as_bytes.shape, as_bytes.dtype) == ((1, 4, 2, 3), np.uint8)
    assert as_bytes[0, 0, 0].tolist() == [255, 0, 0]
    first = load(tmp_path, taking("float32", -1, 3, 4, 2)).images
    assert (first.shape, first[0, :, 0, 0].tolist()) == ((1, 3, 4, 2), [1.0, 0.0, 0.0])
    assert load(tmp_path, taking("uint8", -1, 4, 2, 1)).images.shape == (1, 4, 2, 1)


def test_images_go_as_they_are_where_the_input_is_of_bytes_or_unknown(tmp_path):
    content = picture(tmp_path).read_bytes()
    assert load(tmp_path, taking("bytes", -1)).images.tolist() == [content]
    assert load(tmp_path, replace(target("pytorch"), input_shape=())).bodies == (content,)


def test_arrays_are_one_sample_or_several(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(4, dtype=np.float64))
    np.save(tmp_path / "b.npy", np.ones((2, 4)))
    found = load(tmp_path, taking("float32", -1, 4))
    assert (found.images.shape, found.images.dtype, found.names) == ((3, 4), np.float32, ("a", "b-0", "b-1"))
    with pytest.raises(Problem, match=r"a.npy: is \(4,\); a sample is \(5,\)"):
        load(tmp_path, taking("float32", -1, 5))
    with pytest.raises(Problem, match=r"a.npy: holds float64, and convnet takes int32"):
        load(tmp_path, taking("int32", -1, 4))


def test_bodies_are_sent_as_they_are(tmp_path):
    (tmp_path / "b.json").write_text('{"instances": [2]}')
    (tmp_path / "a.json").write_bytes(codecs.BOM_UTF8 + b'{"instances":  [1]}')  # the mark is no JSON
    (tmp_path / ".hidden").write_text("x")
    found = load(tmp_path, taking("float32", -1, 4))
    assert found.bodies == (b'{"instances":  [1]}', b'{"instances": [2]}')
    assert found.names == ("a", "b")


def test_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(Problem, match=r"inputs.payloads = .*none.*: No such file"):
        load(tmp_path / "none", taking("uint8", -1, 4))
    with pytest.raises(Problem, match="no file in it"):
        load(tmp_path, taking("uint8", -1, 4))
    for name, content, says in (
        ("x.txt", b"x", "x.txt: use images"),
        ("x.json", b"{", "x.json: not valid JSON"),
        ("x.npy", b"nothing", "x.npy: not a NumPy array"),
        ("x.png", b"nothing", "x.png: not an image that can be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Problem, match=says):
            load(tmp_path / name, taking("uint8", -1, 4, 2, 3))
    with pytest.raises(Problem, match="use images"):
        load(tmp_path, taking("uint8", -1, 4, 2, 3))


@settings(max_examples=40)
@given(
    asked=st.one_of(
        st.lists(st.binary(max_size=20), min_size=1, max_size=5).map(lambda found: Samples(bodies=tuple(found))),
        st.lists(st.binary(max_size=20), min_size=1, max_size=5).map(
            lambda found: Samples(np.array([*found, None], object)[:-1])
        ),
        arrays.arrays(np.float32, (3, 2), elements=st.floats(-9, 9, width=32)).map(Samples),
    ),
    right=st.one_of(st.none(), arrays.arrays(np.float32, (3, 2), elements=st.floats(-9, 9, width=32))),
)
def test_a_run_s_own_reference_holds_what_is_asked(asked, right, tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    reference_file.write(path, asked, right, 0.01)
    found = Reference(path)
    assert found.bodies == asked.bodies
    assert found.images.tolist() == asked.images.tolist()
    assert found.tolerance == 0.01
    assert (found.probabilities is None) == (right is None)
    if right is not None:
        np.testing.assert_array_equal(found.probabilities, right)


JSON_BODY = json.dumps({"instances": [[1, 2]]}).encode()
BODIES = Samples(bodies=(JSON_BODY, JSON_BODY), names=("a", "b"))


def silent(where: Target) -> Target:
    return replace(where, classes=0, input_shape=(), max_batch_size=1)


def test_the_first_target_s_answers_are_right_and_others_are_held_to_them():
    with small_server("rest", "ok") as (good, _), small_server("rest", "wrong") as (bad, _):
        right = right_answers.of(Inputs(), BODIES, silent(good), "rest")
        assert right is not None
        np.testing.assert_allclose(right, np.full((2, 10), 0.1), rtol=1e-6)
        found = right_answers.check(silent(good), "rest", BODIES, right, 1e-3, "those of a")
        assert (found.max_abs_diff, found.samples) == (0.0, 2)
        with pytest.raises(Problem, match=r"are not those of a: sample 0 differs by up to 0.8, as do 1 others of 2"):
            right_answers.check(silent(bad), "rest", BODIES, right, 1e-3, "those of a")
        assert right_answers.of(Inputs(answers="status"), BODIES, silent(bad), "rest") is None
        right_answers.answers_at_all(silent(bad), "rest", BODIES)


def test_an_error_is_no_answer_whatever_counts_as_right():
    with small_server("rest", "503") as (where, _), pytest.raises(Problem, match=r"sample 0: HTTP 503: busy$"):
        right_answers.answers_at_all(silent(where), "rest", BODIES)


def test_recorded_answers(tmp_path):
    asked = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.save(tmp_path / "r.npy", asked)
    np.savez(tmp_path / "r.npz", answers=asked, other=asked)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, row in zip("ab", asked, strict=True):
        np.save(folder / f"{name}.npy", row)
    for place in (tmp_path / "r.npy", tmp_path / "r.npz", folder):
        found = right_answers.of(Inputs(answers=str(place)), BODIES, target("pytorch"), "rest")
        assert found is not None
        assert found.tolist() == asked.tolist()
    np.save(tmp_path / "r.npy", asked[:1])
    with pytest.raises(Problem, match="holds answers to 1 samples, and there are 2"):
        right_answers.of(Inputs(answers=str(tmp_path / "r.npy")), BODIES, target("pytorch"), "rest")
    (folder / "b.npy").unlink()
    with pytest.raises(Problem, match=r"b.npy: not a NumPy array: .*No such file"):
        right_answers.of(Inputs(answers=str(folder)), BODIES, target("pytorch"), "rest")


def test_the_generator_checks_answers_only_where_it_is_known_what_is_right(tmp_path):
    reference_file.write(tmp_path / "r.npz", BODIES, None, 0.1)
    draw = np.random.default_rng(0)
    free = Payloads(Reference(tmp_path / "r.npz"), silent(target("pytorch")), "rest", 1, 5, draw)
    assert free.expected is None
    assert free.right(0, b"anything")
    assert len(free) == 2
    assert free.encoded[0].endswith(JSON_BODY)
    reference_file.write(tmp_path / "r.npz", BODIES, np.array([[100.0, 1.0]] * 2), 0.1)
    held = Payloads(Reference(tmp_path / "r.npz"), silent(target("pytorch")), "rest", 1, 5, draw)
    assert held.right(0, b'{"predictions": [[109, 1.05]]}')  # within a tenth, and a tenth of what is above 1
    assert not held.right(0, b'{"predictions": [[111, 1]]}')
    assert not held.right(0, b'{"predictions": [[100]]}')
    with pytest.raises(Problem, match="2 whole bodies do not go into one request: use batch = 1"):
        Payloads(Reference(tmp_path / "r.npz"), silent(target("pytorch")), "rest", 2, 5, draw)


def test_a_server_whose_metadata_cannot_be_had_is_asked_for_what_the_user_says():
    """As behind a proxy that lets nothing but predictions through."""
    with small_server("rest", "ok") as (where, _):  # which knows no GET
        closed = replace(silent(where), engine="tensorflow-serving")
        with pytest.raises(Problem, match=rf"target.pytorch: http://{closed.rest}/v1/models/digits/metadata: "):
            endpoint.described([closed], "rest", Inputs())
        shaped = replace(closed, input_shape=(8, 8, 3))
        assert endpoint.described([shaped], "rest", Inputs()) == [shaped]
        assert endpoint.described([closed], "rest", Inputs(payloads="folder")) == [closed]

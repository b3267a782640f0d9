"""Models of several inputs: their .npz files, random samples, shapes that the user says, and which output is judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from loadtest.experiment import inputs
from loadtest.experiment.runtimes import endpoint
from loadtest.experiment.settings import Inputs
from models.problem import Problem
from serving import description
from serving.engines.engine import Description, Tensor
from serving.reference_file import Samples
from serving.target import Target
from tests.serving.targets import target

IDS, SCALE, WORD = Tensor("ids", "int64", (-1, 3)), Tensor("scale", "float32", (-1,)), Tensor("word", "bytes", (-1, 1))
OPEN = Tensor("tokens", "int32", (-1, -1))


def taking(*tensors: Tensor, name: str = "tensorflow", **changes: object) -> Target:
    found = replace(target(name), inputs=tensors, input_shape=(), classes=0, **changes)  # type: ignore[arg-type]
    return inputs.alike([found])[0]


def load(place: Path, asked: Target) -> Samples:
    return inputs.load(Inputs(payloads=str(place)), asked, 0)


def test_random_samples_are_of_each_input_s_type_and_shape():
    found = inputs.load(Inputs(samples=20), taking(IDS, SCALE, Tensor("mask", "bool", (-1, 2, 2))), seed=3).images
    assert found.dtype == np.dtype([("ids", "i8", (3,)), ("scale", "f4"), ("mask", "?", (2, 2))])
    assert (len(found), found["ids"].min() >= 0, found["scale"].max() <= 1) == (20, True, True)
    again = inputs.load(Inputs(samples=20), taking(IDS, SCALE, Tensor("mask", "bool", (-1, 2, 2))), seed=3).images
    assert again.tobytes() == found.tobytes()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (taking(IDS, WORD), "takes strings or encoded images, as word: name .npz files"),
        (
            taking(IDS, OPEN),
            r"a sample's tokens \(the input is \[-1, -1\]\)\? Give input_shapes = { tokens = \[SIZES\] }",
        ),
    ],
)
def test_what_cannot_be_made_up_is_asked_for(asked, says):
    with pytest.raises(Problem, match=says):
        inputs.load(Inputs(), asked, 0)


def test_the_user_says_what_the_server_leaves_open():
    asked = taking(IDS, OPEN, Tensor("any", "float32", ()), input_shapes={"tokens": (7,), "any": (2, 2)})
    assert [one.shape for one in asked.inputs] == [(-1, 3), (-1, 7), (-1, 2, 2)]
    found = inputs.load(Inputs(samples=2), asked, 0).images
    assert [found[name].shape for name in ("ids", "tokens", "any")] == [(2, 3), (2, 7), (2, 2, 2)]


@pytest.mark.parametrize(
    ("tensors", "shapes", "says"),
    [
        (
            (IDS, OPEN),
            {"tokens": (7, 7, 7)},
            r"input_shapes.tokens = \[7, 7, 7\]: the input is \[-1, -1\], the batch first",
        ),
        ((IDS, SCALE), {"ids": (4,)}, r"input_shapes.ids = \[4\]: the input is \[-1, 3\]"),
        ((IDS, SCALE), {"idz": (3,)}, "input_shapes.idz: no input of convnet, which has ids, scale"),
        ((IDS,), {"ids": (3,)}, "input_shapes: convnet takes one input, ids: use input_shape"),
        ((IDS, IDS), {}, "two inputs have one name: ids, ids"),
    ],
)
def test_shapes_that_the_model_does_not_take_are_refused(tensors, shapes, says):
    with pytest.raises(Problem, match=says):
        taking(*tensors, input_shapes=shapes)


def test_servers_that_take_other_inputs_are_not_compared():
    one, other = (replace(target(name), inputs=(), input_shape=(), classes=0) for name in ("pytorch", "tensorflow"))
    with pytest.raises(
        Problem, match=r"tensorflow: takes ids \[-1, 3\], scale \[-1\], and pytorch ids \[-1, 3\], word"
    ):
        inputs.alike([replace(one, inputs=(IDS, WORD)), replace(other, inputs=(IDS, SCALE))])
    first, second = inputs.alike([one, replace(other, inputs=(IDS, SCALE))])  # one that does not say is asked the same
    assert first.inputs == second.inputs
    inputs.alike([replace(one, inputs=(IDS, SCALE)), replace(other, inputs=(SCALE, IDS))])


def test_files_hold_one_sample_or_several_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", ids=[1, 2, 3], scale=0.5, word=["fox"])
    np.savez(tmp_path / "b.npz", word=[["Zürich"], ["cat"]], scale=[1.0, 2.0], ids=np.arange(6).reshape(2, 3))
    found = load(tmp_path, taking(IDS, SCALE, WORD))
    assert found.names == ("a", "b-0", "b-1")
    assert found.images["ids"].tolist() == [[1, 2, 3], [0, 1, 2], [3, 4, 5]]
    assert (found.images["scale"].dtype, found.images["scale"].tolist()) == (np.float32, [0.5, 1.0, 2.0])
    assert found.images["word"].tolist() == [[b"fox"], ["Zürich".encode()], [b"cat"]]


def test_nobody_says_what_is_taken_then_the_files_do(tmp_path):
    np.savez(tmp_path / "a.npz", ids=np.arange(3), word=b"fox")
    found = load(tmp_path, replace(target("pytorch"), input_shape=(), classes=0)).images
    assert (found["ids"].tolist(), found["word"].tolist()) == ([[0, 1, 2]], [b"fox"])


def test_a_model_of_one_input_takes_its_values(tmp_path):
    np.savez(tmp_path / "a.npz", ids=np.arange(6).reshape(2, 3))
    assert load(tmp_path, taking(IDS)).images.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(Problem, match="has ids; convnet takes scale"):
        load(tmp_path, taking(SCALE))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"ids": [1, 2, 3]}, "a.npz: has ids; convnet takes ids, scale"),
        ({"ids": [1, 2, 3], "scale": 1.0, "more": 1}, "a.npz: has ids, scale, more; convnet takes ids, scale"),
        ({"ids": [1, 2], "scale": 1.0}, r"its ids is \[2\]; a sample's is \[3\], several are \[N, …\]"),
        ({"ids": [[1, 2, 3]] * 2, "scale": [1.0] * 3}, "different numbers of samples: ids 2, scale 3"),
        ({"ids": [[1, 2, 3]] * 2, "scale": 1.0}, "different numbers of samples: ids 2, scale one"),
        ({"ids": [1.5, 2, 3], "scale": 1.0}, "holds float64, and convnet takes int64"),
        ({"ids": ["a", "b", "c"], "scale": 1.0}, "holds strings, and convnet takes int64"),
        ({"ids": np.array([{}, 1, 2]), "scale": 1.0}, r"no .npz file of arrays without objects: "),
        ({"ids": np.array([1j, 2, 3]), "scale": 1.0}, "its ids is complex128: use numbers or strings"),
        ({}, "has no array"),
    ],
)
def test_files_that_cannot_be_used_say_what_is_wrong(values, says, tmp_path):
    np.savez(tmp_path / "a.npz", **values)
    with pytest.raises(Problem, match=says) as caught:
        load(tmp_path, taking(IDS, SCALE))
    assert "\n" not in str(caught.value)


def test_other_files_of_several_inputs(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    with pytest.raises(Problem, match=r"takes 2 inputs \(ids, scale\): use .npz files with an array for each"):
        load(tmp_path, taking(IDS, SCALE))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(Problem, match=r"no .npz file of arrays"):
        load(tmp_path, taking(IDS, SCALE))
    np.savez(tmp_path / "a.npz", tokens=np.arange(3), ids=np.arange(3))
    np.savez(tmp_path / "b.npz", tokens=np.arange(4), ids=np.arange(3))
    with pytest.raises(Problem, match=r"its files differ in names, shapes or types"):
        load(tmp_path, taking(IDS, OPEN))


@settings(max_examples=60, deadline=None)
@given(content=st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda tail: b"PK\3\4" + tail)))
def test_whatever_is_in_a_file_it_is_read_or_refused_in_one_line(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "a.npz"
    path.write_bytes(content)
    with pytest.raises(Problem) as caught:
        load(path, taking(IDS, SCALE))
    assert str(path) in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 4),
    shape=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    kind=st.sampled_from(["int8", "int32", "uint16", "float32", "float64", "bool"]),
    data=st.data(),
)
def test_what_was_saved_is_what_is_asked(count, shape, kind, data, tmp_path_factory):
    other = data.draw(arrays.arrays(np.int64, (count, 3), elements=st.integers(-9, 9)))
    values = data.draw(arrays.arrays(kind, (count, *shape)))
    path = tmp_path_factory.mktemp("files") / "a.npz"
    np.savez(path, **{"x y/é": values, "ids": other})
    found = load(path, taking(Tensor("x y/é", kind, (-1, *shape)), IDS)).images
    np.testing.assert_array_equal(found["x y/é"], values)
    np.testing.assert_array_equal(found["ids"], other)


class TestJudged:
    """Which output of several is compared."""

    @staticmethod
    def described(monkeypatch, output: str = "", answers: str = "first", engine: str = "open-inference") -> Target:
        outputs = (Tensor("boxes", "float32", (-1, 4)), Tensor("scores", "float32", (-1, 2)))
        said = Description("mine 1", (IDS, SCALE), outputs)
        monkeypatch.setattr(description, "describe", lambda *_: said)
        asked = replace(target("pytorch"), engine=engine, input_shape=(), classes=0, output=output)
        return endpoint.described([asked], "rest", Inputs(answers=answers))[0]

    def test_the_one_that_is_named(self, monkeypatch):
        found = self.described(monkeypatch, "scores")
        assert (found.output, [one.name for one in found.outputs]) == ("scores", ["boxes", "scores"])

    def test_several_and_none_is_named(self, monkeypatch):
        with pytest.raises(
            Problem, match=r"target.pytorch: convnet gives 2 outputs \(boxes, scores\): name the one .*output = 'boxes'"
        ):
            self.described(monkeypatch)
        assert self.described(monkeypatch, answers="status").outputs

    def test_one_that_is_not_there(self, monkeypatch):
        with pytest.raises(Problem, match=r"target.pytorch.output = 'score': convnet gives boxes, scores: name one"):
            self.described(monkeypatch, "score")

    def test_of_an_engine_without_names(self, monkeypatch):
        with pytest.raises(
            Problem, match=r"target.pytorch.output = 'x': answers of torchserve have no outputs by name"
        ):
            self.described(monkeypatch, "x", engine="torchserve")


def test_whole_bodies_do_not_go_over_grpc(tmp_path):
    from loadtest.experiment import file as experiments
    from loadtest.experiment.run_folder import RunFolder
    from loadtest.experiment.runtimes.endpoint import EndpointTargets

    (tmp_path / "a.json").write_text("{}")
    text = (
        'protocols = ["grpc", "rest"]\n[inputs]\n'
        f'payloads = "{tmp_path / "a.json"}"\n[[target]]\nname = "a"\nengine = "open-inference"\n'
        'url = "http://127.0.0.1:1"\ngrpc = "127.0.0.1:2"\n'
    )
    experiment = experiments.parse(text)
    folder = RunFolder.open(tmp_path / "results", experiment, "", fresh=True)
    with pytest.raises(Problem, match=r"inputs.payloads = .*a.json': whole bodies go over REST: leave grpc out"):
        EndpointTargets(folder, experiment, endpoint.named(experiment))

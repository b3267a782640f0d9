from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from models import architectures, datasets, training, weights
from models.declaration import UNDECLARED, Intake, Preprocessing
from models.problem import Problem
from models.progress import Progress
from models.training import Settings, Trained


@pytest.fixture(scope="module")
def digits():
    """640 digits to train on, 360 to test."""
    whole = datasets.load("digits")
    return replace(whole, train=datasets.Split(whole.train.images[:640], whole.train.labels[:640]))


def _train(digits, seed, stream=None):
    return training.train("convnet", digits, Settings(seed=seed, epochs=1), Progress(stream or io.StringIO()))


def test_same_seed_gives_bitwise_the_same_weights_whatever_ran_before(digits):
    first = _train(digits, seed=3)
    torch.rand(7)
    torch.set_num_threads(1)
    second = _train(digits, seed=3)
    assert torch.get_num_threads() == 1
    weights, again = first.classifier.state_dict(), second.classifier.state_dict()
    assert weights.keys() == again.keys()
    for name, tensor in weights.items():
        assert tensor.numpy().tobytes() == again[name].numpy().tobytes(), name
    assert first.record["test_accuracy"] > 0.7

    other = _train(digits, seed=4).classifier.state_dict()
    assert not torch.equal(weights["network.0.weight"], other["network.0.weight"])


def test_checkpoint_holds_weights_only_and_gives_the_same_answers(digits, tmp_path):
    trained = _train(digits, seed=0)
    path = tmp_path / "deep" / "model.pt"
    training.save(trained, path)
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]
    torch.load(path, weights_only=True)
    loaded = training.load(path)
    assert loaded.record == trained.record
    images = digits.test.images[:16]
    assert np.array_equal(training.predict(loaded.classifier, images), training.predict(trained.classifier, images))


def test_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(Problem, match=r"model.pt: not a checkpoint of this program .*delete it to train again"):
        training.load(path)


def test_channel_statistics_are_those_of_numpy(digits):
    images = digits.train.images[:100].copy()
    images[..., 1] = 7
    means, deviations = training.channel_statistics(images)
    flat = images.reshape(-1, 3).astype(np.float64)
    assert means == pytest.approx(flat.mean(axis=0))
    assert deviations == pytest.approx([flat[:, 0].std(), 1.0, flat[:, 2].std()])


def test_progress_off_a_terminal_is_plain_lines(digits, monkeypatch):
    monkeypatch.setattr("models.progress.LINE_EVERY_S", 0.0)
    monkeypatch.setattr("models.progress.FIRST_LINE_S", 0.0)
    stream = io.StringIO()
    _train(digits, seed=0, stream=stream)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert "images/s  loss " in lines[-1]
    assert lines[-1].endswith("0 s left")
    assert "\x1b" not in stream.getvalue()


def test_impossible_settings_are_refused():
    with pytest.raises(Problem, match="--epochs 0"):
        Settings(epochs=0)
    with pytest.raises(Problem, match="--seed -1"):
        Settings(seed=-1)
    assert replace(Settings(), seed=5).to_dict()["seed"] == 5


def test_unknown_architecture_lists_the_known_ones():
    with pytest.raises(Problem, match="model 'vgg' is unknown: use one of convnet"):
        architectures.build("vgg", 10)


def test_normalisation_is_part_of_the_model():
    classifier = architectures.build("convnet", 10, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)).eval()
    seen = []
    classifier.network[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    probabilities = classifier(images)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(2))
    expected = (images.double() - torch.tensor([1.0, 2.0, 3.0])) / torch.tensor([4.0, 5.0, 6.0])
    assert torch.allclose(seen[0].permute(0, 2, 3, 1).double(), expected, atol=1e-5)


def test_what_is_declared_of_pixels_wins_and_is_read_back_with_the_weights(tmp_path):
    intake = Intake((40, 60, 3), Preprocessing("-1-1", resize=(32,), centre_crop=(32,), channel_order="bgr"))
    made = architectures.build("lenet", 10, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), intake=intake).eval()
    assert made.mean.flatten().tolist() == made.std.flatten().tolist() == [127.5] * 3
    training.save(Trained(made, {"model": "lenet", "preprocessing": intake.record}), tmp_path / "lenet.pt")
    again = training.load(tmp_path / "lenet.pt").classifier
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)
    assert np.array_equal(training.predict(made, images), training.predict(again, images))
    other = architectures.build("lenet", 10, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), intake=Intake((32, 32, 3)))
    assert other.mean.flatten().tolist() == [1.0, 2.0, 3.0]


def test_a_trained_network_is_normalised_as_declared_and_kept_apart(digits, tmp_path):
    few = replace(digits, train=replace(digits.train, images=digits.train.images[:64], labels=digits.train.labels[:64]))
    intake = Intake(preprocessing=Preprocessing("0-1"))
    trained = training.train("lenet", few, Settings(), Progress(io.StringIO()), intake)
    assert trained.classifier.std.flatten().tolist() == pytest.approx([255.0] * 3)
    assert trained.record["preprocessing"] == {"input": None, "declared": {"preset": "0-1"}}
    paths = {weights.checkpoint_path(tmp_path, "lenet", "digits", Settings(), one) for one in (intake, UNDECLARED)}
    assert len(paths) == 2

"""Checkpoints as users bring them: of torchvision, of training scripts, damaged, and of another network."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from models import architectures, checkpoints
from models.problem import Problem

MEAN, STD = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]


@pytest.fixture(scope="module")
def weights():
    """A state dict of resnet18 for 1000 classes with the keys that torchvision publishes (see test_architectures)."""
    torch.manual_seed(0)
    return architectures.named("resnet18").network(1000).state_dict()


@pytest.fixture
def file(tmp_path):
    """Writes an object as file.pth."""

    def write(content):
        torch.save(content, tmp_path / "file.pth")
        return tmp_path / "file.pth"

    return write


def _load(path, model="resnet18"):
    return checkpoints.classifier(checkpoints.read(path), model, MEAN, STD)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
    ],
    ids=["state dict", "torchvision's training script", "DataParallel", "before PyTorch 0.4.1"],
)
def test_a_torchvision_checkpoint_gives_its_network_s_logits(weights, file, wrapped):
    classifier = _load(file(wrapped(weights)))
    expected = architectures.named("resnet18").network(1000)
    expected.load_state_dict(weights)
    images = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    normalised = (images.permute(0, 3, 1, 2) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(classifier.logits(images), expected.eval()(normalised))


def test_densenet_s_published_files_have_older_keys(file):
    state = architectures.named("densenet121").network(10).state_dict()
    older = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value for key, value in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    loaded = _load(file(older), "densenet121").network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_tandem_s_own_checkpoint_brings_its_normalisation(tmp_path, file):
    own = architectures.build("lenet", 10, (9.0, 8.0, 7.0), (6.0, 5.0, 4.0))
    loaded = _load(file({"format": 1, "training": {}, "classes": 10, "weights": own.state_dict()}), "lenet")
    assert loaded.mean.reshape(-1).tolist() == [9.0, 8.0, 7.0]
    assert loaded.std.reshape(-1).tolist() == [6.0, 5.0, 4.0]


def test_another_network_s_weights_are_refused_by_key(weights, file):
    less = {key: value for key, value in weights.items() if "layer4.1.bn2" not in key}
    with pytest.raises(Problem, match=r"file.pth: not the weights of resnet18: layer4.1.bn2.weight and 3 more are"):
        _load(file(less))
    with pytest.raises(Problem, match=r"not the weights of resnet18: extra.weight is too many; name the architecture"):
        _load(file({**weights, "extra.weight": torch.zeros(1)}))
    with pytest.raises(Problem, match=r"conv1.weight is 64x3x3x3 and not 64x3x7x7"):
        _load(file({**weights, "conv1.weight": torch.zeros(64, 3, 3, 3)}))
    with pytest.raises(Problem, match=r"not the weights of vgg11: classifier.6.weight is missing"):
        _load(file(weights), "vgg11")


def test_nan_in_weights_is_named(weights, file):
    broken = weights["layer1.0.bn1.bias"].clone()
    broken[3] = float("nan")
    with pytest.raises(Problem, match=r"file.pth: layer1.0.bn1.bias holds NaN or infinity"):
        checkpoints.read(file({**weights, "layer1.0.bn1.bias": broken}))


class _Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('this must not run')",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_Evil(), r"its pickle names \S*exec, and code of a file is not run; save the weights only"),
        (nn.Linear(2, 2), r"its pickle names torch.nn.modules.linear.Linear, and code of a file is not run"),
        ([1, 2], r"holds a list and no state dict; save one with torch.save\(model.state_dict\(\), file\)"),
        ({"epoch": 3}, r"epoch is a int and no tensor; save the state dict alone"),
    ],
)
def test_what_is_no_state_dict_is_refused_and_no_code_is_run(file, content, message):
    with pytest.raises(Problem, match=rf"CHECKPOINT=.*file.pth: {message}") as caught:
        checkpoints.read(file(content))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_checkpoints_are_named(tmp_path, weights, file):
    with pytest.raises(Problem, match=r"CHECKPOINT=.*absent.pth: no such file"):
        checkpoints.read(tmp_path / "absent.pth")
    with pytest.raises(Problem, match=r"a folder; name the file"):
        checkpoints.read(tmp_path)
    path = file(weights)
    path.write_bytes(path.read_bytes()[: 2**20])
    with pytest.raises(Problem, match=r"file.pth: not a checkpoint \("):
        checkpoints.read(path)
    scripted = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
    scripted.save(str(path))
    with pytest.raises(Problem, match=r"file.pth: not a checkpoint \(.*TorchScript"):
        checkpoints.read(path)

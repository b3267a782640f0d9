"""Networks that cannot be served are refused with the reason, those that can are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import brought, examination
from models.declaration import Output, Preprocessing
from models.problem import Problem

SHAPE = (6, 5, 3)
FEATURES = 6 * 5 * 3


class Net(nn.Module):
    """A layer and whatever is done to its scores."""

    def __init__(self, after=lambda scores: scores, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(FEATURES, classes)
        self.norm = nn.BatchNorm1d(classes)
        self.drop = nn.Dropout(0.5)
        self.after = after
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        return self.after(self.drop(self.norm(self.layer(x.flatten(1)))))


class Counting(Net):
    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Remembering(Net):
    last = 0.0

    def forward(self, x):
        scores = super().forward(x) + self.last
        self.last = scores.mean().item() + 1
        return scores


class ViewingFixed(Net):
    def forward(self, x):
        return super().forward(x.view(3, -1))


class StaysInTraining(Net):
    def train(self, mode=True):
        return super().train(True)


def _examined(network, output=Output.LOGITS, shape=SHAPE):
    return examination.classes("MODEL=nets:build", brought.wrapped(network, shape, Preprocessing(), output))


def _softmax(scores):
    return torch.softmax(scores, dim=1)


def test_a_classifier_tells_how_many_classes():
    assert _examined(Net()) == 4  # batch norm and dropout are in evaluation mode
    assert _examined(Net(_softmax), Output.PROBABILITIES) == 4
    assert _examined(Net(lambda scores: torch.log_softmax(scores, dim=1))) == 4


def _batch_norm(scores):
    return (scores - scores.mean(0)) / (scores.var(0, unbiased=False) + 1).sqrt()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Net(lambda scores: (scores, scores)), r"returns a tuple of 2; return one tensor \[N, classes\]"),
        (Net(lambda scores: {"out": scores, "aux": scores}), "returns a dict of out, aux; return one tensor"),
        (Net(lambda scores: scores.double()), r"gives float64; give float32 \(module.float\(\)\)"),
        (Net(lambda scores: scores.argmax(1)), "gives int64; give float32"),
        (Net(lambda scores: scores[:, 0]), r"gives \[3\] for 3 images; give \[N, classes\], a row for each image"),
        (Net(lambda scores: scores[:, :, None]), r"gives \[3, 4, 1\] for 3 images"),
        (Net(lambda scores: scores[:1]), r"gives \[1, 4\] for 3 images"),
        (Net(classes=1), "gives 1 value for an image; a classifier has two classes or more"),
        (Net(lambda scores: scores / 0), "gives NaN or infinity; mend its weights, or its preprocessing"),
        (
            Net(torch.nn.functional.dropout),
            "two equal calls give different answers; drop out or draw only where self.t",
        ),
        (Remembering(), "two equal calls give different answers"),
        (Counting(), "buffer calls changes with every call; keep no state in evaluation"),
        (
            Net(_batch_norm),
            "an image's answer depends on the other images of its batch; use no statistics of the batch",
        ),
        (ViewingFixed(), "fails on a batch of 1 with INPUT=6x5x3: RuntimeError: mat1 and mat2 shapes"),
        (StaysInTraining(), r"StaysInTraining stays in train mode after eval\(\); let train\(False\) reach it"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(7, 4)),
            "fails on a batch of 3 with INPUT=6x5x3: RuntimeError: mat1 and mat2",
        ),
        (Net(_softmax), "output = 'logits', and its rows are probabilities already .*; use output = 'probabilities'"),
    ],
)
def test_what_cannot_be_served_is_named(network, message):
    with pytest.raises(Problem, match=f"MODEL=nets:build: {message}") as caught:
        _examined(network)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (lambda scores: scores.clamp(0, 1) + 0.5, r"a row adds up to [2-6](\.\d+)?; use output = 'logits' for scores"),
        (lambda scores: _softmax(scores) * 8 - 1.75, r"a row holds -0\..*; use output = 'logits' for scores"),
        (torch.sigmoid, "a row adds up to "),
    ],
)
def test_probabilities_must_add_up_to_1(after, message):
    with pytest.raises(Problem, match=rf"output = 'probabilities', and {message}"):
        _examined(Net(after), Output.PROBABILITIES)


def test_weights_that_are_no_numbers_are_named_and_masks_of_infinity_are_none():
    broken = Net()
    with torch.no_grad():
        broken.norm.weight[2] = torch.nan
    with pytest.raises(Problem, match=r"MODEL=nets:build: weight norm.weight holds NaN or infinity"):
        _examined(broken)
    broken = Net()
    broken.norm.running_mean[0] = torch.nan
    with pytest.raises(Problem, match=r"MODEL=nets:build: buffer norm.running_mean holds NaN"):
        _examined(broken)
    masked = Net()
    masked.calls.fill_(-torch.inf)
    assert _examined(masked) == 4


def test_batch_norm_without_running_statistics_looks_at_the_batch():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten())
    network.append(nn.Linear(4 * 4 * 3, 4))
    with pytest.raises(Problem, match="an image's answer depends on the other images of its batch"):
        _examined(network)

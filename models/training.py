"""Seeded training of a classifier, and its checkpoint."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models import architectures, whole_file
from models.architectures import ImageClassifier
from models.datasets import Dataset, Split
from models.declaration import UNDECLARED, Intake
from models.problem import Problem
from models.progress import Progress

CHECKPOINT_FORMAT = 1
EPOCHS = {"fashion-mnist": 1, "cifar10": 6, "digits": 2}
MAX_THREADS = 8


@dataclass(frozen=True)
class Settings:
    """What decides the weights, together with the model, the data set, the machine and torch's version.

    epochs         passes over the training split
    batch_size     images in one step
    learning_rate  peak of the one-cycle schedule of Adam
    """

    seed: int = 0
    epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise Problem(f"--seed {self.seed}: use a whole number from 0 to 2^63 - 1")
        if self.epochs < 1:
            raise Problem(f"--epochs {self.epochs}: use a whole number of 1 or more")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """A trained classifier, in evaluation mode, and the record of its training for the manifest."""

    classifier: ImageClassifier
    record: dict[str, Any]


Build = Callable[[Mapping[str, Any], int], ImageClassifier]


def _house(record: Mapping[str, Any], classes: int) -> ImageClassifier:
    return architectures.build(record["model"], classes, intake=Intake.of(record.get("preprocessing")))


def train(model: str, dataset: Dataset, settings: Settings, progress: Progress, intake: Intake = UNDECLARED) -> Trained:
    """Train ``model`` from scratch on the training split and measure it on the test split. Pixels are normalised by the
    split's own statistics, unless ``intake`` declares otherwise.

    The same settings give bitwise the same weights on the same machine with the same torch.
    """
    started = time.monotonic()
    with reproducible(settings.seed):
        mean, std = channel_statistics(dataset.train.images)
        classifier = architectures.build(model, len(dataset.class_names), mean, std, intake)
        with _channels_last(classifier):
            _fit(classifier.train(), dataset.train, settings, progress)
        classifier.eval()
        accuracy = _accuracy(predict(classifier, dataset.test.images), dataset.test)
    record = {
        **settings.to_dict(),
        "dataset": dataset.name,
        "model": model,
        "preprocessing": intake.record,
        "seconds": round(time.monotonic() - started, 1),
        "test_accuracy": accuracy,
        "torch": str(torch.__version__),
    }
    return Trained(classifier, record)


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images [N, H, W, C], in pixel values."""
    counts = [np.bincount(images[..., channel].reshape(-1), minlength=256) for channel in range(images.shape[3])]
    values = np.arange(256)
    means = [float(np.average(values, weights=count)) for count in counts]
    variances = [
        float(np.average((values - mean) ** 2, weights=count)) for mean, count in zip(means, counts, strict=True)
    ]
    return means, [max(variance**0.5, 1.0) for variance in variances]  # a constant channel must not divide by 0


def images_at_once(images: np.ndarray) -> int:
    """How many of these images [N, H, W, C] to compute together: more leave the cache, and fill memory."""
    return min(max(2**20 // int(images[0].nbytes), 8), 64)


@torch.inference_mode()
def predict(classifier: ImageClassifier, images: np.ndarray) -> np.ndarray:
    """Probabilities, float32 [N, classes], by eager PyTorch."""
    batches = torch.from_numpy(images).split(images_at_once(images))
    probabilities: np.ndarray = torch.cat([classifier(batch) for batch in batches]).numpy()
    return probabilities


def save(trained: Trained, path: Path) -> None:
    """Write the weights and the record of the training; the file is whole or absent.

    It is made in memory, as all files of PyTorch are here: of a full disk its own writers tell once more when they are
    taken away, on stderr.
    """
    content = {
        "format": CHECKPOINT_FORMAT,
        "training": trained.record,
        "classes": int(trained.classifier(trained.classifier.example(1)).shape[1]),
        "weights": trained.classifier.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with whole_file.within(path.parent):
        whole_file.write_bytes(path, buffer.getbuffer())


def load(path: Path, build: Build = _house) -> Trained:
    """Read what `save` wrote, running no code of the file; raises `Problem` for a damaged or foreign file.

    ``build`` makes the classifier that the weights are for, from the record and the number of classes.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != CHECKPOINT_FORMAT:
            raise Problem(f"{path}: checkpoint format {content['format']}; delete it to train again")
        record = content["training"]
        classifier = build(record, content["classes"])
        classifier.load_state_dict(content["weights"])
    except (FileNotFoundError, Problem):
        raise
    except Exception as error:  # torch raises many kinds for a damaged file
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Problem(f"{path}: not a checkpoint of this program ({first}); delete it to train again") from None
    return Trained(classifier.eval(), record)


def _fit(classifier: ImageClassifier, split: Split, settings: Settings, progress: Progress) -> None:
    images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    batch_size = min(settings.batch_size, len(labels))
    steps = settings.epochs * (len(labels) // batch_size)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps)
    # Smoothed labels keep gradients away from numbers so small that CPUs take many times longer for them (denormals).
    measure = nn.CrossEntropyLoss(label_smoothing=0.05)
    with progress.bar("training", total=steps * batch_size, unit="images") as bar:
        for batch in _batches(len(labels), batch_size, settings):
            loss = measure(classifier.logits(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.advance(batch_size, f"loss {loss.item():.3f}")


def _batches(samples: int, batch_size: int, settings: Settings) -> Iterator[torch.Tensor]:
    order = torch.Generator().manual_seed(settings.seed)
    for _ in range(settings.epochs):
        shuffled = torch.randperm(samples, generator=order)
        yield from shuffled[: samples - samples % batch_size].split(batch_size)


@contextmanager
def _channels_last(classifier: ImageClassifier) -> Iterator[None]:
    """Let convolutions and pools run in N, H, W, C order while training: about 1.7 times as fast on CPUs."""
    # A MaxPool's backward pass copies the whole image when its two gradients lie in different orders.
    hooks = [
        module.register_full_backward_pre_hook(
            lambda _, gradients: tuple(gradient.contiguous(memory_format=torch.channels_last) for gradient in gradients)
        )
        for module in classifier.modules()
        if isinstance(module, nn.MaxPool2d)
    ]
    classifier.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        classifier.to(memory_format=torch.contiguous_format)
        for hook in hooks:
            hook.remove()


def _accuracy(probabilities: np.ndarray, split: Split) -> float:
    return float((probabilities.argmax(axis=1) == split.labels).mean())


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Fix every source of chance, and the thread count, which decides the order of float sums."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(min(os.cpu_count() or 1, MAX_THREADS))
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)

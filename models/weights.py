"""The weights of a recipe: trained on its data set, the user's, or drawn from its seed."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import (
    architectures,
    checkpoints,
    datasets,
    declaration,
    examination,
    exporting,
    factories,
    seeded_weights,
    training,
)
from models.brought import Brought
from models.bundle import Weights
from models.datasets import Dataset
from models.declaration import UNDECLARED, Intake, Output
from models.precision import Precision
from models.problem import Problem
from models.progress import Progress
from models.recipe import Recipe, Reference
from models.training import Settings, Trained


def checkpoint_path(artifacts: Path, model: str, dataset: str, settings: Settings, intake: Intake = UNDECLARED) -> Path:
    """Where the checkpoint of these settings lies."""
    declared = f"-{_digest(intake)}" if intake != UNDECLARED else ""
    return artifacts / model / "checkpoints" / f"{dataset}-seed{settings.seed}-epochs{settings.epochs}{declared}.pt"


def train(
    model: str, dataset: str, settings: Settings, artifacts: Path, data_folder: Path | None, progress: Progress
) -> Path:
    """Train, unless a checkpoint of the same settings is there; returns the checkpoint's path. Raises `Problem` for an
    architecture that is not trained here."""
    if declaration.is_factory(model):
        raise Problem(
            f"--model {model}: a model of your own is trained by you; export it, with CHECKPOINT=file or without"
        )
    if not architectures.named(model).trained_here:
        raise Problem(f"--model {model}: too large to train here; export it with CHECKPOINT=file, or seeded")
    path = checkpoint_path(artifacts, model, dataset, settings)
    if _reusable(path, model, dataset, settings) is None:
        _train(model, datasets.load(dataset, data_folder), settings, path, progress)
    else:
        progress.say("training", f"reused {path}")
    return path


def obtain(
    recipe: Recipe,
    data: Dataset | None,
    reference: Reference,
    artifacts: Path,
    progress: Progress,
    precision: Precision = Precision.FP32,
) -> Trained:
    """The classifier and the record of where its weights come from; what was trained before is reused.

    ``precision``: what an architecture that is to be trained must be able to be exported in. Raises `Problem`.
    """
    if recipe.weights is Weights.TRAINED:
        assert data is not None
        wanted = (recipe.model, recipe.dataset, recipe.settings, recipe.intake)
        path = checkpoint_path(artifacts, *wanted)
        found = _reusable(path, *wanted)
        return found or _train(recipe.model, data, recipe.settings, path, progress, precision, recipe.intake)
    record: dict[str, Any] = {
        "dataset": recipe.images_of,
        "model": recipe.model,
        "preprocessing": recipe.intake.record,
        "test_accuracy": None,
        "torch": str(torch.__version__),
    }
    if recipe.brought is not None:
        return _brought(recipe, recipe.brought, reference, record, progress)
    started = time.monotonic()
    if recipe.checkpoint is not None:
        if recipe.architecture.trained_here and data is not None:
            mean, std = training.channel_statistics(data.train.images)
        else:
            mean, std = list(checkpoints.IMAGENET_MEAN), list(checkpoints.IMAGENET_STD)
        classifier = checkpoints.classifier(recipe.checkpoint, recipe.model, mean, std, recipe.intake)
        progress.say("weights", f"{recipe.checkpoint.path}, {len(reference.class_names):,} classes")
        if reference.labelled:
            record["test_accuracy"] = _accuracy(training.predict(classifier, reference.images), reference)
        return Trained(classifier, {**record, "file": recipe.checkpoint.path.name})
    calibration = recipe.calibration(data)
    progress.say("weights", f"seeded, not trained: calibrating {recipe.model} on {len(calibration)} images")
    with training.reproducible(recipe.settings.seed):
        mean, std = training.channel_statistics(calibration)
        classes = len(reference.class_names)
        seed = recipe.settings.seed
        classifier = seeded_weights.classifier(recipe.model, classes, mean, std, calibration, seed, recipe.intake)
    seconds = round(time.monotonic() - started, 1)
    return Trained(classifier, {**record, "seconds": seconds, "calibration_images": len(calibration)})


def _brought(
    recipe: Recipe, brought: Brought, reference: Reference, record: dict[str, Any], progress: Progress
) -> Trained:
    """The user's own network; what it gives for the reference's images is looked at, too."""
    if recipe.checkpoint is not None:
        source = f"weights of {recipe.checkpoint.path}"
    else:
        source = "its own weights" if brought.files else "weights as the factory made them"
    shape = declaration.written(brought.image_shape)
    progress.say("weights", f"{brought.said}, {source}, {shape} images, {brought.classes:,} classes")
    with factories.said(f"{brought.said}: fails on the images of {recipe.images_of}"):
        probabilities = training.predict(brought.classifier, reference.images)
    examination.check_output(brought.said, probabilities, Output.PROBABILITIES)
    if reference.labelled:
        record["test_accuracy"] = _accuracy(probabilities, reference)
    return Trained(brought.classifier, record)


def _reusable(path: Path, model: str, dataset: str, settings: Settings, intake: Intake = UNDECLARED) -> Trained | None:
    if not path.exists():
        return None
    trained = training.load(path)
    wanted = {**settings.to_dict(), "model": model, "dataset": dataset, "preprocessing": intake.record}
    return trained if all(trained.record.get(key) == value for key, value in wanted.items()) else None


def _train(
    model: str,
    data: Dataset,
    settings: Settings,
    path: Path,
    progress: Progress,
    precision: Precision = Precision.FP32,
    intake: Intake = UNDECLARED,
) -> Trained:
    exporting.rehearse(model, len(data.class_names), precision, intake)
    trained = training.train(model, data, settings, progress, intake)
    training.save(trained, path)
    record = trained.record
    progress.say("training", f"{record['seconds']:.0f} s, test accuracy {record['test_accuracy']:.4f}, {path}")
    return trained


def _digest(intake: Intake) -> str:
    return hashlib.sha256(json.dumps(intake.record, sort_keys=True).encode()).hexdigest()[:12]


def _accuracy(probabilities: np.ndarray, reference: Reference) -> float:
    return float((probabilities.argmax(axis=1) == reference.labels).mean())

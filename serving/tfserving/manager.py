"""Which models are served, in which versions, under which labels and in which states."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from serving.tfserving.batching import Batcher, Direct
from serving.tfserving.config import BatchingParameters
from serving.tfserving.flags import Flags
from serving.tfserving.identity import NAME
from serving.tfserving.metrics import Metrics
from serving.tfserving.servable import Servable, versions_on_disk
from serving.tfserving.status import Code, ServingError, invalid
from serving.tfserving.workers import Workers

log = logging.getLogger(NAME)

POLL_S = 1.0  # between two looks for a model whose folder is not there yet


class State(IntEnum):
    """A version's state, numbered as in tensorflow_serving/apis/get_model_status.proto."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass
class Version:
    """One version of a model, and what runs it while it is available."""

    model: str
    number: int
    state: State = State.START
    error: ServingError | None = None
    servable: Servable | None = None
    runner: Batcher | Direct | None = None


@dataclass
class Model:
    """One model: its versions by number, and its labels."""

    name: str
    versions: dict[int, Version] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)

    def latest(self) -> Version | None:
        """The available version with the highest number."""
        available = [number for number, version in self.versions.items() if version.state == State.AVAILABLE]
        return self.versions[max(available)] if available else None


class Manager:
    """Loads what the configuration names, and finds the version that a request means."""

    def __init__(self, flags: Flags, parameters: BatchingParameters | None, workers: Workers, metrics: Metrics) -> None:
        self.flags = flags
        self.parameters = parameters
        self.workers = workers
        self.metrics = metrics
        self.models: dict[str, Model] = {}

    def load(self, configs: list[Any], stopping: Callable[[], bool] = lambda: False) -> None:
        """Load every model of the configuration; waits for a model's folder as long as there is none.

        Raises `ServingError` when one cannot be served.
        """
        failures = []
        for config in configs:
            base_path = Path(config.base_path)
            while not (numbers := _chosen(config.model_version_policy, versions_on_disk(base_path))):
                log.warning("no version of %s under %s yet; waiting", config.name, base_path)
                time.sleep(POLL_S)
                if stopping():
                    return
            model = self.models[config.name] = Model(config.name)
            for number in numbers:
                version = model.versions[number] = Version(config.name, number)
                self._load(version, base_path / _folder(base_path, number))
                if version.error:
                    failures.append(f"{{{{name: {config.name} version: {number}}} due to error: {version.error}}}, ")
        if failures:
            message = f"{len(failures)} servable(s) did not become available: {{{''.join(failures)}}}"
            raise ServingError(Code.UNKNOWN, message)
        for config in configs:
            self._label(self.models[config.name], dict(config.version_labels))

    def _load(self, version: Version, path: Path) -> None:
        version.state = State.LOADING
        for attempt in range(self.flags.max_num_load_retries + 1):
            if attempt:
                time.sleep(self.flags.load_retry_interval_micros / 1e6)
            try:
                servable = Servable(version.model, version.number, path, self.flags)
                version.runner = self._runner(servable)
            except ServingError as error:
                log.error("loading %s version %d failed: %s", version.model, version.number, error)
                self.metrics.load_attempts.of(str(path), "fail").add()
                version.error = error
                continue
            version.servable, version.state, version.error = servable, State.AVAILABLE, None
            self.metrics.load_attempts.of(str(path), "success").add()
            self.metrics.load_latency.of(str(path)).add(servable.load_micros)
            log.info("loaded %s version %d in %.0f ms", version.model, version.number, servable.load_micros / 1000)
            return
        version.state = State.END

    def _runner(self, servable: Servable) -> Batcher | Direct:
        if self.parameters is None:
            return Direct(servable, self.workers)
        try:
            return Batcher(servable, self.parameters, self.workers, self.metrics)
        except ServingError:
            servable.close()
            raise

    def _label(self, model: Model, labels: dict[str, int]) -> None:
        for number in labels.values():
            version = model.versions.get(number)
            available = version is not None and version.state == State.AVAILABLE
            if not available and not self.flags.allow_version_labels_for_unavailable_models:
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {model.name}, "
                    "which is not currently available for inference",
                )
        model.labels = labels

    def find(self, name: str, number: int | None = None, label: str | None = None) -> Version:
        """The available version meant by a model's name and perhaps a version or a label; raises `ServingError`."""
        model = self.models.get(name)
        if label is not None:
            if model is None or label not in model.labels:
                raise invalid(f"Unrecognized servable version label: {label}")
            number = model.labels[label]
        if number is None:
            latest = model.latest() if model else None
            if latest is None:
                raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
            return latest
        version = model.versions.get(number) if model else None
        if version is None or version.state != State.AVAILABLE:
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {number})")
        return version

    def status(self, name: str, number: int | None = None) -> list[Version]:
        """The versions of a model, or the one asked for, newest first; raises `ServingError`."""
        model = self.models.get(name)
        if model is None:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        if number is None:
            return [model.versions[key] for key in sorted(model.versions, reverse=True)]
        if number not in model.versions:
            raise ServingError(Code.NOT_FOUND, f"Could not find version {number} of model {name}")
        return [model.versions[number]]

    def close(self) -> None:
        """Free every loaded version."""
        for model in self.models.values():
            for version in model.versions.values():
                version.state = State.END
                if version.servable:
                    version.servable.close()


def _chosen(policy: Any, numbers: list[int]) -> list[int]:
    """The versions that a `ServableVersionPolicy` picks (default: the latest one)."""
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return numbers
    if kind == "specific":
        return [number for number in numbers if number in policy.specific.versions]
    return numbers[-max(1, policy.latest.num_versions) :]


def _folder(base_path: Path, number: int) -> str:
    """A version's folder name, which may have leading zeros."""
    return next(entry.name for entry in base_path.iterdir() if entry.name.isdecimal() and int(entry.name) == number)

"""Which models are served, in which versions, under which labels and in which states.

The manager follows the file system: it loads what the configuration and the version policy ask for, and unloads what
they no longer ask for, but never the last good version in favour of one that does not load. All state changes happen
on the event loop's thread; only loading and freeing a version run on a thread of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

from serving.engines.embedded_tfserving import versions
from serving.engines.embedded_tfserving.batching import Batcher
from serving.engines.embedded_tfserving.config import BatchingParameters, check_models, per_model_batching
from serving.engines.embedded_tfserving.direct import Direct
from serving.engines.embedded_tfserving.flags import Flags
from serving.engines.embedded_tfserving.identity import NAME
from serving.engines.embedded_tfserving.metrics import Metrics
from serving.engines.embedded_tfserving.servable import Servable
from serving.engines.embedded_tfserving.status import ServingError, invalid
from serving.engines.embedded_tfserving.workers import Workers
from serving.wire.grpc_status import Code

log = logging.getLogger(NAME)

_LIBC = ctypes.CDLL(None)
# Requests that may travel with a SavedModel (https://www.tensorflow.org/tfx/serving/saved_model_warmup).
WARMUP_RECORDS = Path("assets.extra") / "tf_serving_warmup_requests"
FIRST_POLL_S = 1.0  # between two looks for a model whose folder is not there yet, where the flags name no other time


class State(IntEnum):
    """A version's state, numbered as in tensorflow_serving/apis/get_model_status.proto."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass
class Version:
    """One version of a model, and what runs it while it is available.

    `in_flight` counts the requests that it is computing; `contents` is what its folder held at the last attempt to load
    it; `retry_due` ends the pause before the next one.
    """

    model: str
    number: int
    path: Path
    state: State = State.START
    error: ServingError | None = None
    servable: Servable | None = None
    runner: Batcher | Direct | None = None
    in_flight: int = 0
    contents: versions.Contents | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: bool = True
    retry_due: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        """A request on this version begins."""
        self.in_flight += 1

    def end(self) -> None:
        """A request on this version has ended."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()


@dataclass
class Model:
    """One model: its configuration (None once dropped), its versions by number, and its labels."""

    name: str
    config: Any
    versions: dict[int, Version] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)

    def latest(self) -> Version | None:
        """The available version with the highest number."""
        available = [number for number, version in self.versions.items() if version.state == State.AVAILABLE]
        return self.versions[max(available)] if available else None

    def available(self, number: int) -> bool:
        """Whether requests for this version are answered."""
        version = self.versions.get(number)
        return version is not None and version.state == State.AVAILABLE


class Manager:
    """Loads what the configuration names, and finds the version that a request means."""

    def __init__(self, flags: Flags, parameters: BatchingParameters | None, workers: Workers, metrics: Metrics) -> None:
        self.flags = flags
        self.parameters = parameters
        self.workers = workers
        self.metrics = metrics
        self.models: dict[str, Model] = {}
        # One thread: each has a memory pool of its own in glibc.
        self.loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self.tasks: set[asyncio.Task[None]] = set()  # versions that are being loaded or unloaded
        self.one_at_a_time = asyncio.Lock()  # loading: it takes every core and much memory
        self.reloading = asyncio.Lock()
        self.attempted = asyncio.Event()  # set as an attempt to load a version ends, and as no more follow

    async def start(self, configs: Sequence[Any]) -> None:
        """Load every model of the configuration; waits for a model's folder as long as there is none.

        Raises `ServingError` when one cannot be served.
        """
        check_models(configs)
        self._check_labels(configs)
        self._configure(configs)
        while waiting := [model for model in self.models.values() if not self._aspired(model)]:
            for model in waiting:
                log.warning("no version of %s under %s yet; waiting", model.name, model.config.base_path)
            await asyncio.sleep(max(self.flags.file_system_poll_wait_seconds, FIRST_POLL_S))
        await self.look()
        await self._settled(self.models)

    def _aspired(self, model: Model) -> list[versions.OnDisk]:
        return versions.chosen(model.config, versions.on_disk(model.config.base_path) or [])

    async def follow(self) -> None:
        """Follow the file system, every --file_system_poll_wait_seconds, for ever."""
        seconds = self.flags.file_system_poll_wait_seconds
        while seconds > 0:
            await asyncio.sleep(seconds)
            try:
                await self.look()
            except Exception:  # e.g. no file descriptor left; the next look may go well
                log.exception("looking for new versions failed")

    async def reload(self, configs: Sequence[Any]) -> None:
        """Serve these models from now on, those that are new before this returns.

        Raises `ServingError`; where a new model has no version at all or a label means a version that is not
        available, nothing has changed.
        """
        async with self.reloading:
            check_models(configs)
            new = [config for config in configs if config.name not in self._configured()]
            for config in new:
                if not versions.on_disk(config.base_path):
                    raise ServingError(
                        Code.NOT_FOUND,
                        f"Could not find base path {config.base_path} for servable {config.name} with a version in it",
                    )
            self._check_labels(configs)
            self._configure(configs)
            started = await self.look()
            if started:
                await asyncio.wait(started, timeout=1)  # what is dropped has ended unless requests hold it
        await self._settled({config.name for config in new})

    async def look(self) -> list[asyncio.Task[None]]:
        """Look at the file system once and begin to load and unload what follows from it; the tasks begun."""
        begun: list[asyncio.Task[None]] = []
        for model in list(self.models.values()):
            found: list[versions.OnDisk] | None = []
            if model.config is not None:
                # Off the loop: a network file system may take its time.
                found = await asyncio.get_running_loop().run_in_executor(None, versions.on_disk, model.config.base_path)
            if found is not None:  # None: the base path cannot be read; what is served stays
                begun += self._reconcile(model, versions.chosen(model.config, found))
        return begun

    def _reconcile(self, model: Model, aspired: Sequence[versions.OnDisk]) -> list[asyncio.Task[None]]:
        begun = []
        for entry in aspired:
            known = model.versions.get(entry.number)
            if known is None or (known.state == State.END and known.contents != entry.contents):
                version = model.versions[entry.number] = Version(model.name, entry.number, entry.path)
                begun.append(self._task(self._load(version)))
            elif known.contents != entry.contents:
                known.retry_due.set()
        wanted = {entry.number for entry in aspired}
        for version in list(model.versions.values()):
            version.wanted = version.number in wanted
            if not version.wanted:
                version.retry_due.set()
            if version.number in wanted or version.state != State.AVAILABLE:
                continue
            # The last good version stays until another is available, unless there is nothing else to serve.
            if not wanted or any(model.available(number) for number in wanted):
                version.state = State.UNLOADING
                begun.append(self._task(self._unload(version)))
        return begun

    def _task(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _load(self, version: Version) -> None:
        loop = asyncio.get_running_loop()
        for attempt in range(self.flags.max_num_load_retries + 1):
            if attempt:  # at once where the files change: a copy has gone on
                # Not wait_for, which may take a cancellation for the end of the pause.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.flags.load_retry_interval_micros / 1e6):
                        await version.retry_due.wait()
                version.retry_due.clear()
                if not version.wanted:
                    version.state, version.error, version.contents = State.END, None, None
                    break
            async with self.one_at_a_time:
                version.state = State.LOADING
                try:
                    loaded = await loop.run_in_executor(self.loader, partial(self._make, version))
                except Exception as caught:
                    error = caught if isinstance(caught, ServingError) else ServingError(Code.INTERNAL, repr(caught))
                    log.error("loading %s version %d failed: %s", version.model, version.number, error)
                    self.metrics.load_attempts.of(str(version.path), "fail").add()
                    version.error = error
                    self.attempted.set()
                    continue
            version.servable, version.runner = loaded
            version.state, version.error = State.AVAILABLE, None
            self.metrics.load_attempts.of(str(version.path), "success").add()
            self.metrics.load_latency.of(str(version.path)).add(version.servable.load_micros)
            log.info(
                "loaded %s version %d in %.0f ms", version.model, version.number, version.servable.load_micros / 1000
            )
            break
        else:
            version.state = State.END
        self.attempted.set()
        # What this one replaces goes now, not a poll later.
        self._task(self._look_again())

    async def _look_again(self) -> None:
        await self.look()

    def _make(self, version: Version) -> tuple[Servable, Batcher | Direct]:
        """On a thread: load, warm up, prepare batching; raises `ServingError`, also where files are still arriving."""
        version.contents = versions.contents(version.path)
        servable = Servable(version.model, version.number, version.path, self.flags)
        try:
            if versions.contents(version.path) != version.contents:
                raise ServingError(Code.UNAVAILABLE, f"{version.path} has changed while it was loaded")
            if (version.path / WARMUP_RECORDS).exists():
                log.warning("%s: warm-up records are not replayed here", version.path / WARMUP_RECORDS)
            parameters = self.parameters
            if parameters is not None and self.flags.enable_per_model_batching_parameters:
                parameters = per_model_batching(version.path)
            runner: Batcher | Direct = Direct(servable, self.workers)
            if parameters is not None:
                runner = Batcher(servable, parameters, self.workers, self.metrics)
        except BaseException:
            servable.close()
            raise
        _give_back_memory()  # loading has taken several times what stays
        return servable, runner

    async def _unload(self, version: Version) -> None:
        while version.in_flight:
            version.idle.clear()
            await version.idle.wait()
        servable, version.servable, version.runner = version.servable, None, None
        assert servable is not None
        await asyncio.get_running_loop().run_in_executor(self.loader, partial(_free, servable))
        del servable
        version.state, version.contents = State.END, None
        log.info("unloaded %s version %d", version.model, version.number)

    async def _settled(self, names: Any) -> None:
        """Wait until the models' versions are loaded; raises `ServingError` naming those of a model that has none.

        A version that is tried once more is not waited for where the model has another: that one is served meanwhile.
        """
        models = [self.models[name] for name in names]
        while any(
            version.state in (State.START, State.LOADING) and not (version.error and model.latest())
            for model in models
            for version in model.versions.values()
        ):
            self.attempted.clear()
            await self.attempted.wait()
        failures = [
            f"{{{{name: {model.name} version: {version.number}}} due to error: {version.error}}}, "
            for model in models
            for version in model.versions.values()
            if version.error and not model.latest()
        ]
        if failures:
            message = f"{len(failures)} servable(s) did not become available: {{{''.join(failures)}}}"
            raise ServingError(Code.UNKNOWN, message)

    def _configured(self) -> set[str]:
        return {name for name, model in self.models.items() if model.config is not None}

    def _configure(self, configs: Sequence[Any]) -> None:
        """Take over what is to be served; models that are no longer named are dropped."""
        for config in configs:
            model = self.models.setdefault(config.name, Model(config.name, config))
            model.config, model.labels = config, dict(config.version_labels)
        names = {config.name for config in configs}
        for model in self.models.values():
            if model.name not in names:
                model.config, model.labels = None, {}

    def _check_labels(self, configs: Sequence[Any]) -> None:
        """Raises `ServingError` for a label that means a version which is not available. With
        --allow_version_labels_for_unavailable_models a new label may, one that moves may not."""
        for config in configs:
            model = self.models.get(config.name) or Model(config.name, config)
            for label, number in config.version_labels.items():
                moves = model.labels.get(label, number) != number
                if model.available(number) or (self.flags.allow_version_labels_for_unavailable_models and not moves):
                    continue
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {model.name}, "
                    "which is not currently available for inference",
                )

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
        if model is None or not model.available(number):
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {number})")
        return model.versions[number]

    def status(self, name: str, number: int | None = None) -> list[Version]:
        """The versions of a model, or the one asked for, newest first; raises `ServingError`."""
        model = self.models.get(name)
        if model is None or not model.versions:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        if number is None:
            return [model.versions[key] for key in sorted(model.versions, reverse=True)]
        if number not in model.versions:
            raise ServingError(Code.NOT_FOUND, f"Could not find version {number} of model {name}")
        return [model.versions[number]]


def _free(servable: Servable) -> None:
    """Free a version's memory and give it back to the system, as the real server does after it has unloaded one."""
    servable.close()
    _give_back_memory()


def _give_back_memory() -> None:
    gc.collect()  # sessions and graphs refer to each other
    if hasattr(_LIBC, "malloc_trim"):  # glibc
        _LIBC.malloc_trim(0)

"""What `make gpu-check` checks, and what comes of each check, as values (see `loadtest.bench.gpu_check`)."""

from __future__ import annotations

import contextlib
import enum
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

from loadtest.experiment import generator_process, meters, records
from loadtest.experiment.compare import export
from loadtest.experiment.file import Experiment
from loadtest.experiment.load_job import LoadJob
from loadtest.experiment.meter_records import DeviceUse, Gpus
from loadtest.experiment.meters import Meters
from loadtest.experiment.phases import ClosedLoopPhase
from models.bundle import Bundle
from models.precision import Precision
from models.problem import Problem
from serving import batch_sizes, wire_parity
from serving.cores import split_cores
from serving.engines import registry
from serving.profile import ServingProfile
from serving.runtimes.process import launch
from serving.target import Target

BUDGET_S = 720.0
IN_FLIGHT = 32
MOST_OVER_MEDIAN = 10.0
PROTOCOL = "grpc"
# NVIDIA Triton, ResNet-50, fp16, 32 requests in flight, images/s.
PUBLISHED = {"T4": 2050.0, "A100": 3600.0}
ORDER = 10.0  # an order of magnitude


class Step(enum.Enum):
    """What is checked.

    PACKAGES    the installed packages can compute on the GPU that is here
    EXPORT      the model at a precision passes the parity gate
    SERVED      a server's answers over the wire agree with PyTorch's, and it says that it computes on the GPU
    STALLS      after the warm-up no request takes longer than `MOST_OVER_MEDIAN` times the median
    THROUGHPUT  within an order of magnitude of what is published
    TOGETHER    both servers are up on one GPU and answer their largest batches at the same time
    """

    PACKAGES = "packages"
    EXPORT = "export"
    SERVED = "served"
    STALLS = "stalls"
    THROUGHPUT = "throughput"
    TOGETHER = "together"


class Outcome(enum.Enum):
    """How a check came out."""

    PASSED = "passed"
    FAILED = "failed"
    LEFT_OUT = "left-out"


class Why(enum.Enum):
    """Why a check was left out.

    NO_GPU        this machine shows none
    CPU_TORCH     there is a GPU, and PyTorch's build is for CPUs
    GPU_ONLY      the precision is a way in which GPUs multiply
    OTHER_MODEL   what is published is of another network, on a GPU
    NOT_EXPORTED  the model could not be exported at this precision
    TIME          the budget was spent
    """

    NO_GPU = "no-gpu"
    CPU_TORCH = "cpu-torch"
    GPU_ONLY = "gpu-only"
    OTHER_MODEL = "other-model"
    NOT_EXPORTED = "not-exported"
    TIME = "time"


@dataclass(frozen=True)
class Checked:
    """One check. ``figure``: what was measured, in the step's own terms (the largest |Δp|, the largest latency over the
    median, images/s); ``allowed``: its bound; ``said``: of a failure, the error; ``use``: what the meters saw."""

    step: Step
    outcome: Outcome
    precision: Precision | None = None
    target: str = ""
    figure: float | None = None
    allowed: float | None = None
    why: Why | None = None
    said: str = ""
    use: DeviceUse | None = None


@dataclass(frozen=True)
class Setup:
    """What is checked on: the device, the network, the seconds of load, and what was found of GPUs."""

    device: str
    model: str
    seconds: float
    gpus: Gpus
    torch: str

    @property
    def is_mismatched(self) -> bool:
        """Whether there is a GPU that PyTorch's build knows nothing of."""
        return self.gpus.used is not None and self.torch.endswith("+cpu")


def setup(found: Gpus) -> Setup:
    """What can be checked here."""
    torch = metadata.version("torch")
    if found.used is not None and not torch.endswith("+cpu"):
        return Setup("gpu", "resnet50", 5.0, found, torch)
    return Setup("cpu", "convnet", 2.0, found, torch)


def precisions(here: Setup) -> tuple[Precision, ...]:
    """The most telling first, in case the budget is spent; fp32's graphs serve TF32 as well."""
    every = (Precision.FP32, Precision.FP16, Precision.TF32, Precision.BF16)
    return every if here.device == "gpu" else tuple(one for one in every if one is not Precision.TF32)


@dataclass
class GpuCheck:
    """The checks of one machine, in their order, within ``budget_s`` seconds; ``say`` gets a line of progress."""

    here: Setup
    meters: Meters
    artifacts: Path
    folder: Path
    budget_s: float
    say: Callable[[str], None]
    found: list[Checked] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _took: float = 0.0  # the longest export with its servers so far

    def run(self) -> list[Checked]:
        """All of them."""
        self._packages()
        if self.here.device == "cpu":
            self._add(Checked(Step.EXPORT, Outcome.LEFT_OUT, Precision.TF32, why=Why.GPU_ONLY))
        for precision in precisions(self.here):
            began = time.monotonic()
            if self._left_s() < self._took:
                self._add(Checked(Step.EXPORT, Outcome.LEFT_OUT, precision, why=Why.TIME))
                continue
            self._at(precision)
            self._took = max(self._took, time.monotonic() - began)
        return self.found

    def _packages(self) -> None:
        if self.here.is_mismatched:
            self._add(Checked(Step.PACKAGES, Outcome.FAILED, why=Why.CPU_TORCH))
        elif self.here.device == "cpu":
            self._add(Checked(Step.PACKAGES, Outcome.LEFT_OUT, why=Why.NO_GPU))
        else:
            self._add(Checked(Step.PACKAGES, Outcome.PASSED))

    def _at(self, precision: Precision) -> None:
        """A precision: its export, and each server in turn; at the first one both together."""
        profile = ServingProfile(device=self.here.device, precision=precision)
        try:
            bundle = self._export(profile)
        except Problem as problem:
            self._add(Checked(Step.EXPORT, Outcome.FAILED, precision, said=str(problem)))
            for name in registry.DEFAULT_TARGETS:
                self._add(Checked(Step.SERVED, Outcome.LEFT_OUT, precision, name, why=Why.NOT_EXPORTED))
            return
        self._add(Checked(Step.EXPORT, Outcome.PASSED, precision))
        for name in registry.DEFAULT_TARGETS:
            self._server(name, bundle, profile)
        if precision is Precision.FP32:
            self._together(bundle, profile)

    def _export(self, profile: ServingProfile) -> Bundle:
        self.say(f"{profile.precision}: exporting {self.here.model} and proving it")
        asked = Experiment(name="gpu-check", model=self.here.model, dataset="digits", profile=profile)
        return export(asked, self.here.model, self.artifacts)

    def _server(self, name: str, bundle: Bundle, profile: ServingProfile) -> None:
        precision = profile.precision
        self.say(f"{precision}: {name}: starting, asking for every batch size, proving over the wire")
        try:
            with self._started(name, bundle, profile) as target:
                agreed = self._proven(target, bundle)
                self._add(
                    Checked(Step.SERVED, Outcome.PASSED, precision, name, figure=agreed, allowed=precision.tolerance)
                )
                self.say(f"{precision}: {name}: {IN_FLIGHT} requests in flight for {self.here.seconds:g} s")
                self._loaded(target, bundle)
        except Problem as problem:
            self._add(Checked(Step.SERVED, Outcome.FAILED, precision, name, said=str(problem)))

    def _proven(self, target: Target, bundle: Bundle) -> float:
        """Every batch size once, then all of the reference; the largest difference of a probability."""
        batch_sizes.touch(target, bundle.reference, PROTOCOL)
        (agreed,) = wire_parity.check(target, bundle.reference, protocols=[PROTOCOL]).values()
        return agreed.max_abs_diff

    def _loaded(self, target: Target, bundle: Bundle) -> None:
        """A closed loop, twice: the first is the warm-up's, and counts for nothing."""
        stem = f"{target.name}-{target.precision}"
        phases = tuple(
            ClosedLoopPhase(
                id=f"{stem}-{number}",
                folder=self.folder / f"{stem}-{number}",
                protocol=PROTOCOL,
                seed=number,
                scenario="offline",
                duration_s=self.here.seconds,
                concurrency=IN_FLIGHT,
                lead_in_s=0.5,
            )
            for number in (1, 2)
        )
        _, cores = split_cores(_cpus())
        job = LoadJob(target=target, reference=bundle.reference, phases=phases, folder=self.folder / stem, cores=cores)
        generator_process.run_phases(job, on_event=lambda _: None, check=lambda: None)
        trial = records.read_trial(phases[-1].folder / "trial.json")
        use = self.meters.use(trial.started_at, trial.ended_at)
        rate = trial.requests.ok / trial.duration_s
        median, longest = trial.latency_ms.p50, trial.latency_ms.max
        failed = sum(trial.errors.values())
        if not median or longest is None or failed:
            said = f"{failed} of {trial.requests.sent} requests failed"
            self._add(Checked(Step.STALLS, Outcome.FAILED, target.precision, target.name, said=said, use=use))
            return
        over = longest / median
        stalls = Checked(
            *(
                Step.STALLS,
                Outcome.PASSED if over <= MOST_OVER_MEDIAN else Outcome.FAILED,
                target.precision,
                target.name,
            ),
            figure=over,
            allowed=MOST_OVER_MEDIAN,
            use=use,
        )
        # A CPU has nothing to time or to load; what is late there is late for other reasons.
        on_cpu = self.here.device == "cpu"
        self._add(replace(stalls, outcome=Outcome.LEFT_OUT, why=Why.NO_GPU) if on_cpu else stalls)
        least = min(PUBLISHED.values()) / ORDER
        throughput = Checked(Step.THROUGHPUT, Outcome.PASSED, target.precision, target.name, figure=rate, use=use)
        if on_cpu:
            self._add(replace(throughput, outcome=Outcome.LEFT_OUT, why=Why.OTHER_MODEL))
        elif target.precision is Precision.FP16:
            outcome = Outcome.PASSED if rate >= least else Outcome.FAILED
            self._add(replace(throughput, outcome=outcome, allowed=least))
        else:
            self._add(throughput)

    def _together(self, bundle: Bundle, profile: ServingProfile) -> None:
        """Both servers up, each asked for its largest batch while the other computes one."""
        if self.here.device == "cpu":
            self._add(Checked(Step.TOGETHER, Outcome.LEFT_OUT, profile.precision, why=Why.NO_GPU))
            return
        self.say(f"{profile.precision}: both servers on one GPU")
        began = time.time()
        try:
            with contextlib.ExitStack() as up:
                targets = [up.enter_context(self._started(name, bundle, profile)) for name in registry.DEFAULT_TARGETS]
                with ThreadPoolExecutor(len(targets)) as pool:
                    for one in [pool.submit(self._proven, target, bundle) for target in targets]:
                        one.result()
                use = self.meters.use(began, time.time() - 2 * meters.PERIOD_S)
        except Problem as problem:
            self._add(Checked(Step.TOGETHER, Outcome.FAILED, profile.precision, said=str(problem)))
            return
        self._add(Checked(Step.TOGETHER, Outcome.PASSED, profile.precision, use=use))

    @contextlib.contextmanager
    def _started(self, name: str, bundle: Bundle, profile: ServingProfile) -> Iterator[Target]:
        cores, _ = split_cores(_cpus())
        place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        with launch.start(name, bundle, profile, place, cores=cores) as running:
            yield running.target

    def _add(self, one: Checked) -> None:
        self.found.append(one)

    def _left_s(self) -> float:
        return self.budget_s - (time.monotonic() - self._began)


def _cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))

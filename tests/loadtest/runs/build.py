"""Builds run folders, file by file as the instrument writes them, from latencies that the test knows."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tomlkit
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogWriter

from loadtest.analysis.records import Decomposition, Parts, Summary, Untold
from loadtest.experiment import decision, records, staircase
from serving.engines import registry
from serving.engines.engine import Backend, Knob, Ports, Served, Site, Switch
from serving.profile import ServingProfile

START = 1_760_000_000.0
TIMELINE = ["second", "scheduled", "sent", "ok", "errors", "p50_ms", "p99_ms", "max_ms", "slip_p99_ms", "in_flight"]
SERVER_TIMELINE = ["t", "rate", "p50_ms", "p99_ms", "batch_size", "cpu_cores", "memory_bytes"]
SLO_P99_MS = 50.0
# Of capacity searches: where they start (requests/s), how many trials they have, and when they need no more.
CENTRE, TRIALS, PRECISION = 700.0, 8, 0.06
PROFILE = {
    "max_batch_size": 32,
    "batch_timeout_ms": 1.0,
    "instances": 1,
    "threads": 1,
    "queue_capacity": 1024,
    "device": "cpu",
    "onednn": "default",
}


@dataclass(frozen=True)
class SimulatedServer:
    """How a simulated server behaves: latency grows as load nears ``capacity`` (requests/s), and a backlog beyond.
    ``apart``: how far its starts lie apart, the standard deviation of its capacity's and its speed's logarithm."""

    engine: str = "torchserve"
    version: str = "0.12.0"
    base_ms: float = 2.0
    capacity: float = 1000.0
    sigma: float = 0.35
    error_share: float = 0.0
    apart: float = 0.0
    knobs: tuple[Knob, ...] = ()
    switches: tuple[Switch, ...] = ()
    backend: Backend | None = None
    profile: Mapping[str, Any] = field(default_factory=dict)

    def latencies(self, rate: float, second: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """[count] latencies in milliseconds of one second's arrivals."""
        load = min(rate / self.capacity, 0.95)
        backlog = max(0.0, rate / self.capacity - 1) * (second + rng.random(count)) * 1000
        return self.base_ms * (1 + load / (1 - load) / 2) * np.exp(rng.normal(0, self.sigma, count)) + backlog


def rendered(engine: str, **own: Any) -> tuple[Knob, ...]:
    """What an engine is given for `PROFILE`, save what is its ``own``."""
    site = Site(host="127.0.0.1", ports=Ports(rest=1, grpc=2, metrics=3), configuration="/c", models="/m", cores=1)
    served = [Served(name="convnet", version="1", path="/m/convnet")]
    return registry.engine(engine).render(ServingProfile.from_dict({**PROFILE, **own}), served, site).knobs


TORCHSERVE = SimulatedServer(base_ms=3.0, capacity=900, knobs=rendered("torchserve"))
TF_SERVING = SimulatedServer(
    engine="tensorflow-serving", version="2.20.0", base_ms=1.9, capacity=1300, knobs=rendered("tensorflow-serving")
)
SAME = SimulatedServer(engine="tensorflow-serving", version="2.20.0", base_ms=3.0, capacity=900)
EMBEDDED = SimulatedServer(engine="embedded-tfserving", version="2.21.0", base_ms=1.9, capacity=1300)
UNBATCHED = SimulatedServer(
    base_ms=3.0, capacity=900, knobs=rendered("torchserve", max_batch_size=1), profile={"max_batch_size": 1}
)
# One engine twice, as fast with batches as without, and another that is faster than both.
THREE = {"pytorch": TORCHSERVE, "unbatched": UNBATCHED, "tensorflow": TF_SERVING}


def write_trial(
    folder: Path,
    record: dict[str, Any],
    seconds: Sequence[np.ndarray],
    server: dict[str, Any] | None = None,
    load: float | None = None,
) -> None:
    """Save one trial: ``seconds`` holds the ok latencies (ms) of each scheduled second; ``record`` overrides; ``load``
    (a share of the server's capacity) gives it a server-side time line."""
    folder.mkdir(parents=True)
    start = record.get("started_at", START)
    merged = HdrHistogram(1, 60_000_000, 3)
    rows = []
    with (folder / "latency.hlog").open("w") as file:
        writer = HistogramLogWriter(file)
        writer.output_log_format_version()
        file.write(f"#[StartTime: {start:.3f} (seconds since epoch)]\n#[BaseTime: {start:.3f} (seconds since epoch)]\n")
        writer.output_legend()
        for second, latencies in enumerate(seconds):
            interval = HdrHistogram(1, 60_000_000, 3)
            for value in latencies:
                interval.record_value(max(1, round(value * 1000)))
            merged.add(interval)
            writer.output_interval_histogram(interval, second or 1e-9, second + 1, 1000)
            p50, p99, top = (
                (interval.get_value_at_percentile(share) / 1000 for share in (50, 99, 100))
                if len(latencies)
                else ("", "", "")
            )
            count = len(latencies)
            rows.append([second, count, count, count, 0, p50, p99, top, 0.2, 4])
    ok = sum(len(latencies) for latencies in seconds)
    failed = sum(record.get("errors", {}).values())
    dropped = record.pop("dropped", 0)
    for column, more in ((1, failed + dropped), (2, failed), (4, failed)):  # they all fell into the last second
        rows[-1][column] += more
    total = ok + failed

    def at(share: float) -> float | None:
        return merged.get_value_at_percentile(share) / 1000 if ok else None

    latency = {"p50": at(50), "p90": at(90), "p95": at(95), "p99": at(99), "p999": at(99.9), "max": at(100)}
    complete = {
        "id": folder.name,
        "scenario": "ladder",
        "repetition": 1,
        "seed": 1,
        "arrival": "poisson",
        "batch": 1,
        "duration_s": float(len(seconds)),
        "lead_in_s": 1.0,
        "started_at": start,
        "ended_at": start + len(seconds),
        "requests": {"scheduled": total + dropped, "sent": total, "completed": total, "ok": ok, "dropped": dropped},
        "errors": {},
        "checked": total // 20,
        "wrong": 0,
        "latency_ms": latency,
        "schedule_slip_ms": {"p50": 0.05, "p99": 0.31, "max": 1.4},
        "in_flight_max": 12,
        "max_in_flight": 1024,
        "generator_cpu": 0.42,
        "cpu_stolen": 0.0,
        "notes": [],
        **record,
    }
    (folder / "trial.json").write_text(json.dumps(complete))
    with (folder / "timeline.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(TIMELINE)
        table.writerows(rows)
    if server is not None:
        (folder / "server.json").write_text(json.dumps(server))
    if load is not None:
        with (folder / "server-timeline.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(SERVER_TIMELINE)
            for second, row in enumerate(rows):
                p50, p99 = (float(value) * 0.8 if value else "" for value in row[5:7])
                cores, memory = min(1.0, load) * 0.97, (410 + 3 * second) * 2**20
                table.writerow([second + 1, row[3], p50, p99, 1 + 6 * load, cores, memory])


CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def write_run(
    folder: Path,
    servers: Mapping[str, SimulatedServer],
    *,
    asked: Sequence[str] | None = None,
    rates: Mapping[str, Sequence[float]] | None = None,
    repetitions: int = 2,
    searches: int = 0,
    most: int = 0,
    overload: Mapping[str, float] | None = None,
    own_rate: float = 0.0,
    duration_s: int = 6,
    seed: int = 1,
    model: str = "convnet",
    dataset: str = "fashion-mnist",
    prometheus: bool = True,
    parity: bool = True,
    price_per_hour: float = 0.0,
    classes: Sequence[str] = CLASSES,
    environment: Mapping[str, Any] | None = None,
    spoil: Callable[[str, str, float, int], dict[str, Any]] = lambda *_: {},
) -> Path:
    """Save a whole run: on each of the first ``repetitions`` starts of each server a trial at each rate of the ladder,
    and on each of the first ``searches`` starts a capacity search.

    asked     the experiment's targets, where not all were measured
    most      the starts that the run could have had, which then looked at its figures; 0: their numbers were fixed
    overload  protocol → a rate that is tried on the second start alone; ``own_rate``: the user's
    spoil     gives keys of trial.json to override for (target, protocol, rate, repetition)
    """
    folder.mkdir(parents=True)
    rates = rates or {"grpc": [200.0, 400.0, 600.0, 800.0], "rest": [150.0, 300.0, 450.0, 600.0]}
    experiment = {
        "name": "recorded",
        "model": model,
        "dataset": dataset,
        "targets": list(asked or servers),
        "protocols": list(rates),
        "runtime": "process",
        "seed": seed,
        "profile": PROFILE,
        "slo": {"p99_ms": SLO_P99_MS, "error_ratio": 0.001},
        "ladder": {
            "rates": {protocol: list(values) for protocol, values in rates.items()},
            "rate": own_rate,
            "overload_rates": dict(overload or {}),
            "repetitions": 0 if most else repetitions,
            "duration_s": float(duration_s),
            "lead_in_s": 1.0,
            "arrival": "poisson",
            "batch": 1,
        },
        "cost": {"price_per_hour": price_per_hour, "currency": "EUR", "expected_rate": 0.0},
    }
    if searches:
        experiment["scenarios"] = ["ladder", "capacity"]
        experiment["capacity"] = {"repetitions": 0 if most else searches, "trials": TRIALS, "precision": PRECISION}
    own = [{"name": name, "engine": one.engine, "profile": dict(one.profile)} for name, one in servers.items()]
    if tables := [table for table in own if table["profile"]]:
        experiment["target"] = tables
    (folder / "experiment.toml").write_text(tomlkit.dumps(experiment))
    if most:
        _save(folder / "decisions.json", {"looks": decision.looks(most), "over": True, "questions": []})
    _save(folder / "environment.json", _environment(prometheus) if environment is None else dict(environment))
    _save(folder / "targets.json", [_target(stack, server, model) for stack, server in servers.items()])
    if parity:
        _save(folder / "bundle-manifest.json", _manifest(model, dataset, classes))
        expected = _samples(folder / "wire-samples.npz")
        wire = {
            stack: {
                protocol: {
                    "max_abs_diff": 4.1e-7 if stack == "pytorch" else 5.6e-7,
                    "top1_agreement": 1.0,
                    "samples": 10000,
                    "disagreements": [[6, 0, 1]] if (stack, protocol) == ("tensorflow", "rest") else [],
                    "examples": {
                        str(sample): [int(values.argmax()), float(values.max())] for sample, values in expected.items()
                    },
                }
                for protocol in rates
            }
            for stack in servers
        }
        _save(folder / "wire-parity.json", {"samples": 10000, "tolerance": 1e-4, "targets": wire})
    for number, (stack, server) in enumerate(servers.items(), start=1):
        _configure(folder / "servers" / f"{_slug(stack)}-{number}", server)
        for protocol in rates:
            for repetition in range(1, max(repetitions, searches, 2 if overload else 0) + 1):
                _warm_up(folder, _slug(stack), protocol, repetition, server)
    order = 0
    for place, (stack, server) in enumerate(servers.items()):
        for over, (protocol, values) in enumerate(rates.items()):
            beyond = (overload or {}).get(protocol)
            for step, rate in enumerate([*values, *([beyond] if beyond else [])]):
                for repetition in range(1, repetitions + 1) if rate != beyond else (2,):
                    order += 1
                    block = ((repetition - 1) * len(servers) + place) * len(rates) + over
                    started_at = START + block * 120 + 10 + step * (duration_s + 2)
                    started = _started(server, stack, protocol, repetition, seed)
                    rng = np.random.default_rng([seed, order])
                    # Both targets see the same arrivals, as in a real run.
                    arrivals = np.random.default_rng([seed, round(rate), repetition, len(protocol)])
                    counts = arrivals.poisson(rate, duration_s)
                    seconds = [started.latencies(rate, second, count, rng) for second, count in enumerate(counts)]
                    record = {
                        **_record(stack, started, protocol, rate, repetition, seconds),
                        "started_at": started_at,
                        **spoil(stack, protocol, rate, repetition),
                    }
                    write_trial(
                        folder / "trials" / f"{order:03d}",
                        record,
                        seconds,
                        _server_figures(server, rate, seconds) if prometheus else None,
                        rate / started.capacity if prometheus else None,
                    )
            for repetition in range(1, searches + 1):
                block = ((repetition - 1) * len(servers) + place) * len(rates) + over
                started = _started(server, stack, protocol, repetition, seed)
                _search(folder, stack, started, protocol, repetition, START + block * 120 + 60, seed, spoil)
    return folder


def _started(server: SimulatedServer, name: str, protocol: str, repetition: int, seed: int) -> SimulatedServer:
    """One start of a server, as it is over a protocol."""
    luck = np.random.default_rng([seed, repetition, *name.encode()]).normal(0, server.apart)
    return replace_base(server, math.exp(luck) * (1.0 if protocol == "grpc" else 1.3))


def _record(
    name: str, server: SimulatedServer, protocol: str, rate: float, repetition: int, seconds: Sequence[np.ndarray]
) -> dict[str, Any]:
    failed = round(server.error_share * sum(map(len, seconds)))
    return {
        "target": name,
        "engine": server.engine,
        "engine_version": server.version,
        "protocol": protocol,
        "offered_rate": rate,
        "repetition": repetition,
        "warm_up": f"{_slug(name)}-{protocol}-r{repetition}",
        "errors": {"status 503": failed} if failed else {},
    }


def _search(
    folder: Path,
    name: str,
    server: SimulatedServer,
    protocol: str,
    repetition: int,
    started_at: float,
    seed: int,
    spoil: Callable[[str, str, float, int], dict[str, Any]],
) -> None:
    """Search for a start's capacity as a run does: by `staircase`, from where all its servers' searches start."""
    rng = np.random.default_rng([seed, repetition, *name.encode(), *protocol.encode()])
    search = f"{_slug(name)}-{protocol}-capacity-r{repetition}"
    tries: list[staircase.Try] = []
    steps = []
    while len(tries) < TRIALS and (len(tries) < 2 or staircase.believe(tries, CENTRE).sd > PRECISION):
        rate, trial = staircase.following(tries, CENTRE), f"{search}-{len(tries) + 1}"
        seconds = [server.latencies(rate, second, count, rng) for second, count in enumerate(rng.poisson(rate, 2))]
        record = {
            **_record(name, server, protocol, rate, repetition, seconds),
            "scenario": "capacity",
            "started_at": started_at + 2.5 * len(tries),
            **spoil(name, protocol, rate, repetition),
        }
        write_trial(folder / "trials" / trial, record, seconds)
        p99 = records.read_trial(folder / "trials" / trial / "trial.json").latency_ms.p99
        met = p99 is not None and p99 <= SLO_P99_MS and not record["errors"]
        tries.append(staircase.Try(rate, met))
        steps.append({"trial": trial, "rate": rate, "p99_ms": p99, "met": met})
    belief = staircase.believe(tries, CENTRE)
    values = {"target": name, "protocol": protocol, "repetition": repetition, "centre": CENTRE}
    values |= {"id": search, "rate": belief.rate, "sd": belief.sd, "seconds": 2.5 * len(tries), "steps": steps}
    (folder / "searches" / search).mkdir(parents=True)
    _save(folder / "searches" / search / "search.json", values)


def replace_base(server: SimulatedServer, factor: float) -> SimulatedServer:
    """The same server with latencies scaled and capacity divided by a factor."""
    if factor == 1.0:
        return server
    return SimulatedServer(**{**vars(server), "base_ms": server.base_ms * factor, "capacity": server.capacity / factor})


def _slug(name: str) -> str:
    return re.sub(r"\W", "", name)[:20]


def _save(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values))


def _environment(prometheus: bool) -> dict[str, Any]:
    return {
        "started_at": START,
        "finished_at": START + 412,
        "cpu_model": "Intel(R) Xeon(R) Processor @ 2.60GHz",
        "cpu_count": 2,
        "memory_bytes": 8 * 2**30,
        "os": "Debian GNU/Linux 12 (bookworm)",
        "kernel": "6.1.0-18-amd64",
        "python": "3.11.7",
        "libraries": {"torch": "2.13.0", "tensorflow": "2.21.0", "torchserve": "0.12.0", "locust": "2.47.0"},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "server_cores": [0],
        "generator_cores": [1],
        "load_average_at_start": [0.31, 0.42, 0.4],
        "prometheus": "2.42.0" if prometheus else None,
        "order": ["pytorch", "tensorflow", "tensorflow", "pytorch"],
        "warnings": []
        if prometheus
        else ["Prometheus is not installed: no server-side metrics (apt-get install prometheus)"],
    }


def _target(stack: str, server: SimulatedServer, model: str) -> dict[str, Any]:
    return {
        "name": stack,
        "engine": server.engine,
        "engine_version": server.version,
        "runtime": "process",
        "model": model,
        "version": 1,
        "input_shape": [32, 32, 3],
        "classes": 10,
        "grpc": "127.0.0.1:7070",
        "rest": "127.0.0.1:8080",
        "metrics": "http://127.0.0.1:8082/metrics",
        "cores": [0],
        "knobs": msgspec.to_builtins(server.knobs),
        "switches": msgspec.to_builtins(server.switches),
        "backend": msgspec.to_builtins(server.backend),
    }


def _samples(path: Path) -> dict[int, np.ndarray]:
    """Save ten small images; [classes] probabilities of each by its index."""
    rng = np.random.default_rng(7)
    indices = np.array([3, 17, 256, 1024, 2048, 4096, 5000, 6001, 7777, 9999])
    images = rng.integers(0, 256, (10, 28, 28, 3), dtype=np.uint8)
    logits = rng.normal(0, 2, (10, 10))
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    np.savez(path, indices=indices, images=images, labels=probabilities.argmax(axis=1), probabilities=probabilities)
    return dict(zip(indices.tolist(), probabilities, strict=True))


def decompose(figures: Summary) -> Summary:
    """A summary with a decomposition for its measurements; TorchServe's front end reports no work of its own."""
    found = []
    for item in figures.measurements:
        total = (item.latency_ms.p50 or 0.0) * 1.15
        torch = item.engine == "torchserve"
        parts = Parts(
            model=total * 0.3, queue=total * 0.25, runtime=None if torch else total * 0.2, transport=total * 0.2
        )
        found.append(
            Decomposition(
                target=item.target,
                protocol=item.protocol,
                scenario=item.scenario,
                offered_rate=item.offered_rate,
                parts_ms=parts,
                total_ms=total,
                batch_size_mean=None if torch else 1.5,
                cannot_report=(Untold.BATCH,) if torch else (),
            )
        )
    return msgspec.structs.replace(figures, decomposition=tuple(found))


def _manifest(model: str, dataset: str, classes: Sequence[str]) -> dict[str, Any]:
    exports = {
        "pytorch": {"accuracy": 0.8934},
        "torchscript": {"accuracy": 0.8934, "max_abs_diff": 0.0, "top1_agreement": 1.0},
        "onnx": {"accuracy": 0.8934, "max_abs_diff": 2.4e-7, "top1_agreement": 1.0},
        "savedmodel": {"accuracy": 0.8934, "max_abs_diff": 4.8e-7, "top1_agreement": 1.0},
    }
    return {
        "format": 1,
        "model": model,
        "version": 1,
        "dataset": {"name": dataset, "class_names": list(classes), "train_samples": 60000, "test_samples": 10000},
        "training": {"seed": 0, "epochs": 4, "seconds": 71.0, "test_accuracy": 0.8934},
        "parity": {"samples": 10000, "tolerance": 1e-4, "exports": exports},
        "libraries": {},
        "files": {},
    }


def _configure(folder: Path, server: SimulatedServer) -> None:
    folder.mkdir(parents=True)
    lines = "".join(f"{knob.native_key}={knob.value}\n" for knob in server.knobs if knob.value is not None)
    (folder / "config.properties").write_text(f"# rendered from the profile\n{lines}")
    (folder / "server.log").write_text("started\n")


def _warm_up(folder: Path, stack: str, protocol: str, repetition: int, server: SimulatedServer) -> None:
    path = folder / "warm-ups" / f"{stack}-{protocol}-r{repetition}"
    path.mkdir(parents=True)
    values = {
        "id": path.name,
        "target": stack,
        "protocol": protocol,
        "steady": True,
        "reached_cap": False,
        "seconds": 3.5,
        "concurrency": 32,
        "windows": [{"t": 0.5, "rate": server.capacity * 0.6, "p50_ms": 20.0}],
        "throughput": server.capacity * 1.2,
    }
    _save(path / "warm-up.json", values)


def _server_figures(server: SimulatedServer, rate: float, seconds: Sequence[np.ndarray]) -> dict[str, Any]:
    latencies = np.concatenate(list(seconds))
    return {
        "throughput": rate * 0.998,
        "latency_ms": {
            "p50": float(np.quantile(latencies, 0.5)) * 0.7,
            "p99": float(np.quantile(latencies, 0.99)) * 0.8,
        },
        "latency_meaning": "time in the handler: from a batch's arrival in the worker to its answer"
        if server.engine == "torchserve"
        else "runtime latency: from the request's arrival in the server to its answer",
        "batch_size_mean": 1 + rate / server.capacity,
        "queue_ms_mean": 0.6,
        "compute_ms_mean": 0.9,
        "source": "prometheus 2.42.0",
    }

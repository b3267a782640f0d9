"""environment.json: where a run took place."""

from __future__ import annotations

from loadtest.experiment.meter_records import GpuMemory, Gpus, IdlePower
from loadtest.experiment.records.notes import RunNote
from loadtest.experiment.records.record import Record
from loadtest.experiment.records.trial import OtherProcess, Throttling


class Lateness(Record, frozen=True, kw_only=True):
    """How late the machine woke a process before any load, milliseconds."""

    p50: float | None = None
    p99: float | None = None
    max: float | None = None


class Node(Record, frozen=True, kw_only=True):
    """The node of a cluster that a target's server ran on, and the server's pod there; of the last start of it. What
    could not be read is None or empty.

    node, instance_type, gpu     its name, what kind of machine it is, and its GPU's model
    capacity                     by resource name, as Kubernetes writes it, and so are the pod's
    limits, requests             of the pod's container, and its Quality of Service class (`qos`)
    kernel, kubelet, container_runtime, os  their versions
    image, image_name            the digest that ran, and the name that it was asked for by
    instance                     see `Target.instance`
    beside                       other pods on the node, as namespace/name
    throttled                    how its control groups stopped the pod while it was under load, over all starts
    """

    node: str | None = None
    instance_type: str | None = None
    gpu: str | None = None
    capacity: dict[str, str] = {}
    kernel: str | None = None
    kubelet: str | None = None
    image: str | None = None
    image_name: str | None = None
    container_runtime: str | None = None
    os: str | None = None
    limits: dict[str, str] = {}
    requests: dict[str, str] = {}
    qos: str | None = None
    pod: str | None = None
    instance: str = ""
    beside: tuple[str, ...] = ()
    throttled: Throttling | None = None


class Environment(Record, frozen=True, kw_only=True):
    """Where a run took place; what was not saved is None or empty.

    server_cores, generator_cores  CPUs that each is pinned to; empty: not pinned
    load_average_at_start          over 1, 5 and 15 minutes
    busy_at_start                  the share of its CPUs' time that others used before any load; `busy_by`: who most
    cpus                           the CPUs that programs may use here; `cpu_quota`: and of their time so many CPUs'
                                   worth, None: all of it
    open_files                     how many files a program may have open
    prometheus                     its version, None where it did not watch the run
    order                          the targets in the order in which their servers were started
    nodes                          target → its node, in a cluster; `load_generator`: where the load generator's pods
                                   were, by their names
    gpus                           of the servers' machine, where one of them computes on a GPU; `gpu_memory`: target →
                                   what it was expected to have of the GPU's memory
    idle                           what the meters of energy said before any server ran; None where there are none
    """

    cpu_model: str | None = None
    cpu_count: int | None = None
    memory_bytes: int | None = None
    os: str | None = None
    kernel: str | None = None
    python: str | None = None
    libraries: dict[str, str] = {}
    git_commit: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    load_average_at_start: tuple[float, ...] = ()
    busy_at_start: float | None = None
    busy_by: tuple[OtherProcess, ...] = ()
    cpus: tuple[int, ...] = ()
    cpu_quota: float | None = None
    open_files: int | None = None
    generator_priority: str | None = None
    wake_up_lateness_ms: Lateness | None = None
    server_cores: tuple[int, ...] = ()
    generator_cores: tuple[int, ...] = ()
    prometheus: str | None = None
    order: tuple[str, ...] = ()
    cluster: str | None = None
    nodes: dict[str, Node] = {}
    load_generator: dict[str, Node] = {}
    gpus: Gpus | None = None
    gpu_memory: dict[str, GpuMemory] = {}
    idle: IdlePower | None = None
    warnings: tuple[RunNote, ...] = ()

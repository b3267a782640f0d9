"""The conditions that a verdict holds under, and the environment that a run took place in."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.analysis.records import LadderInfo, Summary
from loadtest.analysis.saved_run import SavedRun
from loadtest.experiment.records import Environment, Node, ProxyUsed
from loadtest.report import device_words, machine_words, own_model, wording
from models import declaration
from models.bundle import Around, Kind, Weights
from models.declaration import BY_DEFAULT, Output
from models.precision import Precision
from serving.engines.engine import ONEDNN, TRANSPORT
from serving.target import Caveat


def conditions(figures: Summary, accuracies: Sequence[float] = ()) -> list[tuple[str, str]]:
    """(What, how) of a run; ``accuracies``: of each of its models on the test set, where they are to be told."""
    experiment, environment = figures.experiment, figures.environment
    ladder = experiment.ladder or LadderInfo()
    found = [
        _models(figures, accuracies),
        *_preprocessing(figures),
        *_files(figures),
        *own_model.rows(figures),
        ("Servers", _servers(figures)),
        *_backends(figures),
        *_proxies(figures),
        *_outputs(figures),
        ("Requests", f"{wording.plural(ladder.batch, 'image')} each, {ladder.arrival} arrivals"),
        ("Starts", _starts(figures, ladder)),
    ]
    if experiment.ladder:
        found.append(("SLO", _slo(figures)))
    if experiment.profile and not _all_kept_up(figures):
        found.append(("Profile", _profile(figures)))
    if any(knob.name == "precision" for target in figures.targets for knob in target.knobs):
        found.append(("Precision", precision(figures)))
    if said := _onednn(figures):
        found.append(("oneDNN", said))
    if said := _transport(figures):
        found.append(("Front end to workers", said))
    found += device_words.conditions(figures)
    if shown := machine(environment):
        found.append(("Machine", shown))
    if shown := pinning(environment):
        found.append(("Pinning", shown))
    return found


def _starts(figures: Summary, ladder: LadderInfo) -> str:
    """How often each server was started anew, and what was measured each time."""
    each = f"{wording.setting(ladder.duration_s, 's')} at each rate"
    if _all_kept_up(figures):
        blocks = ladder.repetitions or max((item.repetitions for item in figures.measurements), default=0)
        return f"none: the servers stayed up; {wording.plural(blocks, 'block')} of load, {each}"
    if ladder.repetitions:
        return f"{wording.plural(ladder.repetitions, 'start')} of each server, {each}"
    started = [len(entry.starts) for entry in figures.capacity] + [item.repetitions for item in figures.measurements]
    if not started:
        return each
    return f"up to {max(started)} of each server, until a question was decided or the time was up; {each}"


def holds(figures: Summary) -> str:
    """The conditions in one sentence."""
    experiment, where = figures.experiment, machine(figures.environment)
    slo, device = _slo(figures) if experiment.ladder else "", experiment.profile.get("device")
    theirs = _all_kept_up(figures)
    parts = [
        f"for {wording.shorten(_models(figures, ())[1], 80)}",
        f"with an SLO of {slo.replace(', ', ' and ')}" if slo else "",
        f"{'from' if theirs else 'on'} {wording.shorten(where, 80)}" if where else "",
        f"computing on the {str(device).upper()}{_shorter(figures)}" if device and not theirs else "",
    ]
    done = "Measured" if figures.measurements else "Planned"
    return f"{done} {', '.join(part for part in parts if part)}."


def _all_kept_up(figures: Summary) -> bool:
    """Whether all servers are somebody else's, whose tuning and machines are not known."""
    return bool(figures.targets) and all(Caveat.KEPT_UP in target.caveats for target in figures.targets)


def accuracies(run: SavedRun, figures: Summary) -> list[float]:
    """The accuracy of each of a run's models, as far as the bundles' manifests tell."""
    if run.manifest is None:
        return []
    if not figures.experiment.models:
        accuracy = run.manifest.training.test_accuracy if run.manifest.training else None
        return [accuracy] if accuracy else []
    if Weights.SEEDED in figures.weights.values():
        return []  # numbers without a model each would mix real accuracies with meaningless ones
    forms = [form for one in figures.parity.by_model.values() for form in one.exports.values()]
    return [form.accuracy for form in forms if form.is_reference and form.accuracy is not None]


def _models(figures: Summary, accuracies: Sequence[float]) -> tuple[str, str]:
    """The model, or the models that each server holds with their shares of the requests, and the data set."""
    experiment = figures.experiment
    whose = experiment.images or experiment.dataset
    # Endpoints are asked for what is theirs, which is of no data set known here.
    on = f" on {wording.isolated(whose)}" if whose else ""
    if not experiment.models:
        source = _source(figures, list(figures.weights.values()) or [Weights.CHECKPOINT])
        known = f", test accuracy {wording.number(accuracies[0] * 100)} %" if accuracies else ""
        return "Model", f"{wording.isolated(experiment.model or wording.NOTHING)}{source}{on}{known}"
    each = [
        f"{wording.isolated(name)}{_source(figures, [figures.weights.get(declaration.servable(name))])} "
        f"({wording.share(share)} of the requests)"
        for name, share in experiment.models.items()
    ]
    known = f", test accuracy {' and '.join(map(wording.precise_share, accuracies))}" if accuracies else ""
    return "Models", f"{' and '.join(each)}{on}{known}"


def _source(figures: Summary, weights: Sequence[Weights | None]) -> str:
    """Where a model's weights come from, where it is not the house that has them."""
    if Weights.FACTORY in weights:
        return " with weights as its factory made them"
    given = figures.experiment.checkpoint
    return f" with the weights of {wording.isolated(given)}" if given and Weights.CHECKPOINT in weights else ""


def _preprocessing(figures: Summary) -> list[tuple[str, str]]:
    """What is declared of the images that a model takes and what is done to them before, in both servers' graphs."""
    experiment, said = figures.experiment, figures.experiment.preprocessing
    if not (experiment.input or said.declared):
        return []
    named = experiment.models or [experiment.model or ""]
    own = experiment.torchscript or any(declaration.FACTORY.fullmatch(model) for model in named)
    parts = [f"{wording.isolated(experiment.input.replace('x', '×'))} images"] if experiment.input else []
    file = figures.own_files.get(Kind.TORCHSCRIPT)
    if file and Around.NORMALISED not in file.around:
        return [("Input", f"{parts[0]}, as they come; the model does the rest")]
    if said.resize:
        parts.append(f"{'shorter side' if len(said.resize) == 1 else 'images'} resized to {_by(said.resize)}")
    parts += [f"centre of {_by(said.centre_crop)} cropped"] if said.centre_crop else []
    parts += [f"pixels '{said.preset or BY_DEFAULT}'"] if own or said.normalises else []
    parts += [f"times {said.scale:.6g}"] if said.scale is not None else []
    parts += [f"less {_numbers(said.mean)}"] if said.mean else []
    parts += [f"divided by {_numbers(said.std)}"] if said.std else []
    parts += [said.channel_order.upper()] if said.channel_order else []
    parts += [said.layout.upper()] if said.layout else []
    gives = f"; the model gives {wording.isolated(experiment.output or Output.LOGITS)}" if own else ""
    return [("Input", f"{', '.join(parts)}{gives}")]


def _files(figures: Summary) -> list[tuple[str, str]]:
    """The files that clients sent, and what they took on the wire."""
    sent = figures.encoded
    if sent is None:
        return []
    written = f", written in quality {sent.quality} and {sent.subsampling}" if sent.quality else ""
    sizes = f"{wording.count(sent.bytes.least)} to {wording.count(sent.bytes.most)}"
    taken = [
        f"{wording.count(found.bytes_an_image)} over {wording.protocol(protocol)} to {wording.target_name(target)}"
        for target, protocols in figures.parity.wire.items()
        for protocol, found in protocols.items()
        if found.bytes_an_image
    ]
    wire = f"; a request takes {wording.listed(taken)}" if taken else ""
    files = f"{sent.format.upper()} files of {wording.count(sent.bytes.mean)} bytes ({sizes}){written}"
    return [("Images", f"{files}, which each server decodes itself{wire}")]


def _by(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides))


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _servers(figures: Summary) -> str:
    """What answered, with its version; each product once."""
    measured = [target for target in figures.targets if target.measured]
    names = dict.fromkeys(wording.shorten(wording.engine_in_full(target), 120) for target in measured)
    return ", ".join(names) or wording.NOTHING


def _backends(figures: Summary) -> list[tuple[str, str]]:
    """What computed behind the servers that have several ways to."""
    found = [
        f"{wording.shorten(wording.target_name(target.name), 30)}: {wording.backend(target.backend)}"
        for target in figures.targets
        if target.backend
    ]
    return [("Backends", "; ".join(found))] if found else []


def _proxies(figures: Summary) -> list[tuple[str, str]]:
    """What the load went through, where that was asked for."""
    found = [
        f"{wording.listed([wording.shorten(wording.target_name(one), 30) for one in note.targets])}: through "
        f"{wording.isolated(note.proxy)}"
        for note in figures.environment.warnings
        if isinstance(note, ProxyUsed)
    ]
    return [("Proxy", "; ".join(found))] if found else []


def _outputs(figures: Summary) -> list[tuple[str, str]]:
    """Which output of their answers was judged, where models have several."""
    found = [
        f"{wording.shorten(wording.target_name(target.name), 30)}: {wording.isolated(target.output)}"
        for target in figures.targets
        if target.output
    ]
    return [("Judged output", "; ".join(found))] if found else []


def _profile(figures: Summary) -> str:
    profile = figures.experiment.profile
    timeout, instances, threads = (profile.get(name) for name in ("batch_timeout_ms", "instances", "threads"))
    asked = profile.get("onednn")
    onednn = (", with oneDNN" if asked else ", without oneDNN") if isinstance(asked, bool) else ""
    shared = (
        f"batches up to {profile.get('max_batch_size')} within "
        f"{wording.setting(timeout if isinstance(timeout, int | float) else None, 'ms')}, "
        f"{wording.plural(instances if isinstance(instances, int) else None, 'instance')} of "
        f"{wording.plural(threads if isinstance(threads, int) else None, 'thread')}, {profile.get('device')}{onednn}"
    )
    own = [
        f"; {wording.shorten(wording.target_name(name), 30)}: "
        + ", ".join(f"{key} = {wording.plain(value)}" for key, value in overrides.items())
        for name, overrides in figures.experiment.overrides.items()
        if overrides
    ]
    return f"{shared}{''.join(own)}"


_PRECISIONS = {
    Precision.FP32: "fp32, strict: no TF32",
    Precision.TF32: "tf32: float32, whose products a GPU may compute in TF32",
    Precision.BF16: "bf16: weights and activations of both exported graphs; preprocessing and softmax in float32",
    Precision.FP16: "fp16: weights and activations of both exported graphs; preprocessing and softmax in float32",
}


def precision(figures: Summary) -> str:
    """What the models computed in."""
    each = {target.name: target.precision for target in figures.targets}
    if len(set(each.values())) < 2:
        return _PRECISIONS[next(iter(each.values()), Precision.FP32)]
    return ", ".join(f"{wording.shorten(wording.target_name(name), 30)} {one}" for name, one in each.items())


def _shorter(figures: Summary) -> str:
    """Where not every target computes in float32, in what they do."""
    known = list(dict.fromkeys(target.precision for target in figures.targets))
    return "" if known in ([], [Precision.FP32]) else f" in {wording.listed(known)}"


def _onednn(figures: Summary) -> str:
    """Whether the servers computed with oneDNN, as they said themselves; empty where none did."""
    said = {
        target.name: wording.switch(switch.value)
        for target in figures.targets
        for switch in target.switches
        if switch.name == ONEDNN
    }
    if len(said) == len(figures.targets) and len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{wording.shorten(wording.target_name(name), 30)} {how}" for name, how in said.items())


def _transport(figures: Summary) -> str:
    """How the front ends of servers whose workers are processes of their own reached these; empty where none said."""
    return ", ".join(
        f"{wording.shorten(wording.target_name(target.name), 30)} {wording.switch(switch.value)}"
        for target in figures.targets
        for switch in target.switches
        if switch.name == TRANSPORT
    )


def _slo(figures: Summary) -> str:
    slo = figures.experiment.slo
    errors = wording.setting(slo.error_ratio * 100, "%")
    return f"p99 within {wording.setting(slo.p99_ms, 'ms')}, at most {errors} errors"


def _node(name: str, node: Node) -> list[tuple[str, str]]:
    """Where a pod of a cluster ran, what it had, and what ran beside it."""
    machine = [node.node, node.instance_type, node.gpu, node.os, node.kernel, node.container_runtime]
    stopped = node.throttled
    pod = [
        _resources(node),
        f"QoS class {node.qos}" if node.qos else "",
        node.image_name,
        node.image if node.image != node.image_name else "",
        f"stopped {machine_words.held_up(stopped.periods, stopped.seconds)}" if stopped and stopped.periods else "",
        "never stopped by its CPU limit" if stopped and not stopped.periods else "",
    ]
    return [
        (f"node of {name}", ", ".join(wording.isolated(part) for part in machine if part)),
        (f"pod of {name}", ", ".join(wording.isolated(part) for part in pod if part)),
        (f"beside {name}", ", ".join(map(wording.isolated, node.beside))),
    ]


def _resources(node: Node) -> str:
    """What a pod may use at most: "2 CPUs, 4Gi memory"."""
    shown = {"cpu": "CPUs", "memory": "memory"}
    known = [f"{amount} {shown.get(name, name)}" for name, amount in node.limits.items() if name != "ephemeral-storage"]
    return f"at most {', '.join(known)}" if known else ""


def machine(environment: Environment) -> str:
    """The CPU and how many of them, in a cluster those of the servers' pods; empty where that is not known."""
    if environment.nodes:
        each = dict.fromkeys(
            ", ".join(filter(None, (_resources(node), node.instance_type, node.gpu)))
            for node in environment.nodes.values()
        )
        pods = " and ".join(map(wording.isolated, filter(None, each)))
        return f"pods of {pods}" if pods else ""
    cpu = wording.isolated(environment.cpu_model or "")
    cores = f"{environment.cpu_count} CPUs" if environment.cpu_count else ""
    return ", ".join(part for part in (cpu, cores) if part)


def pinning(environment: Environment) -> str:
    """Which CPUs server and generator had; empty where nothing is known of the environment."""
    if environment == Environment():
        return ""
    server, generator = environment.server_cores, environment.generator_cores
    if server and generator:
        return f"server on CPU {_cores(server)}, load generator on CPU {_cores(generator)}"
    return "none: server and load generator share CPUs"


def _cores(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def environment(known: Environment) -> list[tuple[str, str]]:
    """(What, how) of the machines, software and pinning of a run, as far as it saved them."""
    late = known.wake_up_lateness_ms
    lateness = [("p50", late.p50), ("p99", late.p99), ("max", late.max)] if late else []
    whose = "load generator's " if known.cluster else ""  # of a cluster the generator's pod tells these
    rows = [
        (f"{whose}CPU", known.cpu_model or ""),
        (f"{whose}CPUs", str(known.cpu_count or "")),
        (f"{whose}operating system", known.os or ""),
        (f"{whose}kernel", known.kernel or ""),
        (f"{whose}Python", known.python or ""),
        ("commit", known.git_commit or ""),
        ("server on CPU", _cores(known.server_cores)),
        ("generator on CPU", _cores(known.generator_cores)),
        ("load average at the start (1, 5, 15 min)", ", ".join(map(str, known.load_average_at_start))),
        ("generator runs with", known.generator_priority or ""),
        (
            "lateness of a wake-up before any load (ms)",
            ", ".join(f"{name} {wording.number(value)}" for name, value in lateness),
        ),
        ("Prometheus", known.prometheus or ""),
        ("cluster", known.cluster or ""),
        *(row for name, node in known.nodes.items() for row in _node(wording.target_name(name), node)),
        *(row for name, node in known.load_generator.items() for row in _node(wording.isolated(name), node)),
    ]
    return [(name, value) for name, value in rows if value]

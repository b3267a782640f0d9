"""The profile beside what real renderings made of it, and files side by side."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadtest.report import configurations
from serving.engines.tensorflow_serving import config as tensorflow_serving
from serving.engines.torchserve import config as torchserve
from serving.profile import ServingProfile

PROFILE = ServingProfile(max_batch_size=64, batch_timeout_ms=2.5, instances=2, threads=2, queue_capacity=500)


def rendered(profile: ServingProfile) -> tuple[list[dict], dict[str, str]]:
    """Both targets as in a summary, and their files."""
    ports = torchserve.Ports(rest=1, management=2, metrics=3, grpc=4, grpc_management=5)
    torch = torchserve.render(
        profile, model="m", model_version="1", model_store="/s", metrics_config="/metrics.yaml", ports=ports
    )
    tensor = tensorflow_serving.render(
        profile, model="m", model_base_path="/m", configuration="/c", grpc_port=1, rest_port=2
    )
    targets = [
        {"name": "pytorch", "engine": "torchserve", "settings": torch.settings},
        {"name": "tensorflow", "engine": "tensorflow-serving", "settings": tensor.settings},
    ]
    return targets, {**torch.files, **tensor.files, "flags.txt": "\n".join(tensor.flags)}


def test_each_knob_stands_beside_what_both_servers_were_really_given():
    targets, _ = rendered(PROFILE)
    knobs = {knob.name: knob for knob in configurations.knobs({"profile": PROFILE.to_dict()}, targets)}
    assert set(PROFILE.to_dict()) <= set(knobs)
    assert knobs["max_batch_size"].given == ["batchSize = 64 requests", "max_batch_size = 64 images"]
    assert knobs["max_batch_size"].compared == "other unit"
    # TorchServe knows whole milliseconds only: 2.5 became 3, and that is marked.
    assert knobs["batch_timeout_ms"].given == ["maxBatchDelay = 3 ms", "batch_timeout_micros = 2500 µs"]
    assert knobs["batch_timeout_ms"].compared == "differs"
    assert knobs["queue_capacity"].given == ["job_queue_size = 500 requests", "max_enqueued_batches = 8 batches"]
    assert knobs["threads"].compared == "same"
    del targets[1]["settings"]["grpc_max_threads"]
    knobs = {knob.name: knob for knob in configurations.knobs({"profile": PROFILE.to_dict()}, targets)}
    assert knobs["front end, gRPC"].compared == "no counterpart"


def test_equal_delays_in_other_units_are_the_same():
    targets, _ = rendered(ServingProfile(batch_timeout_ms=2.0))
    knobs = {knob.name: knob for knob in configurations.knobs({"profile": {"batch_timeout_ms": 2.0}}, targets)}
    assert knobs["batch_timeout_ms"].compared == "same"


def test_lines_of_rendered_files_are_marked_where_the_servers_differ():
    targets, files = rendered(PROFILE)
    knobs = configurations.knobs({"profile": PROFILE.to_dict()}, targets)

    def marks(name: str, target: dict) -> dict[str, str]:
        return {line.text: line.knob for line in configurations.marked(files[name], target, knobs) if line.knob}

    batching = marks("batching.txt", targets[1])
    assert batching["batch_timeout_micros { value: 2500 }"] == "batch_timeout_ms"
    assert "max_batch_size" in batching["max_batch_size { value: 64 }"]
    assert marks("flags.txt", targets[1])["--grpc_max_threads=644"] == "front end, gRPC"
    properties = marks("config.properties", targets[0])
    assert properties["job_queue_size=500"] == "queue_capacity"
    assert "batch_timeout_ms" in next(knob for line, knob in properties.items() if line.startswith("models="))
    assert not any(line.startswith("#") for line in properties)


def test_one_target_alone_has_nothing_to_compare_with():
    targets, _ = rendered(PROFILE)
    assert {knob.compared for knob in configurations.knobs({"profile": PROFILE.to_dict()}, targets[:1])} == {
        "one target"
    }


lines = st.lists(st.sampled_from(["a=1", "b=2", "c=3", "", "# d"]), max_size=12).map("\n".join)


@given(lines, lines)
def test_side_by_side_keeps_every_line_of_both_in_order(left, right):
    found = configurations.side_by_side(left, right)
    assert [line.left for line in found if line.left is not None] == left.splitlines()
    assert [line.right for line in found if line.right is not None] == right.splitlines()
    assert all((line.left == line.right) == (line.state == "same") for line in found)


def test_a_changed_line_stands_beside_what_it_became():
    found = configurations.side_by_side("a=1\nb=2\n", "a=1\nb=3\nc=4\n")
    assert [(line.left, line.right, line.state) for line in found] == [
        ("a=1", "a=1", "same"),
        ("b=2", "b=3", "changed"),
        (None, "c=4", "only right"),
    ]

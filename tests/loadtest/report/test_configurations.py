"""The profile beside what real renderings made of it, and files side by side."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from loadtest.report import configurations
from loadtest.report.configurations import Compared, Row
from serving.engines import registry
from serving.engines.engine import Knob, KnobKind, Ports, Served, Site, Switch
from serving.profile import ServingProfile

PROFILE = ServingProfile(max_batch_size=64, batch_timeout_ms=2.5, instances=2, threads=2, queue_capacity=500)
ENGINES = ("torchserve", "tensorflow-serving")


def rendered(profile: ServingProfile) -> tuple[list[tuple[Knob, ...]], dict[str, str]]:
    """The knobs of both targets, and their files."""
    site = Site(host="127.0.0.1", ports=Ports(rest=1, grpc=2, metrics=3), configuration="/c", models="/m", cores=1)
    found = [registry.engine(name).render(profile, [Served("m", "1", "/m/m")], site) for name in ENGINES]
    files = {name: text for rendering in found for name, text in rendering.files.items()}
    return [one.knobs for one in found], {**files, "flags.txt": "\n".join(found[1].arguments)}


def rows(profile: ServingProfile, given: list[tuple[Knob, ...]]) -> dict[str, Row]:
    return {row.name: row for row in configurations.rows(profile.to_dict(), given)}


def test_each_knob_stands_beside_what_both_servers_were_really_given():
    given, _ = rendered(PROFILE)
    knobs = rows(PROFILE, given)
    assert set(PROFILE.to_dict()) <= set(knobs)
    assert knobs["max_batch_size"].given == ["batchSize = 64 requests", "max_batch_size = 64 images"]
    assert knobs["max_batch_size"].compared is Compared.OTHER_UNIT
    # TorchServe knows whole milliseconds only: 2.5 became 3, and that is marked.
    assert knobs["batch_timeout_ms"].given == ["maxBatchDelay = 3 ms", "batch_timeout_micros = 2500 µs"]
    assert knobs["batch_timeout_ms"].compared is Compared.DIFFERS
    assert knobs["queue_capacity"].given == ["job_queue_size = 500 requests", "max_enqueued_batches = 8 batches"]
    assert knobs["threads"].compared is Compared.SAME
    without = tuple(knob for knob in given[1] if knob.native_key != "grpc_max_threads")
    knobs = rows(PROFILE, [given[0], without])
    assert knobs["front end, gRPC"].compared is Compared.NO_COUNTERPART
    assert knobs["front end, gRPC"].given[1] is None


def test_a_knob_without_a_counterpart_is_no_setting():
    known = Knob("threads", "threads", 2, asked=2)
    none = Knob("threads", "", None, kind=KnobKind.NO_COUNTERPART, asked=2)
    (row,) = configurations.rows({"threads": 2}, [(known,), (none,)])
    assert (row.given, row.compared) == (["threads = 2", None], Compared.NO_COUNTERPART)


def test_a_setting_that_is_left_to_the_engine_is_not_set():
    given, _ = rendered(PROFILE)
    row = rows(PROFILE, given)["onednn"]
    assert row == Row(
        "onednn", "default", ["TANDEM_TORCH_ONEDNN not set", "TF_ENABLE_ONEDNN_OPTS not set"], Compared.SAME
    )
    off = replace(PROFILE, onednn=False)
    row = rows(off, rendered(off)[0])["onednn"]
    assert row == Row("onednn", "false", ["TANDEM_TORCH_ONEDNN = 0", "TF_ENABLE_ONEDNN_OPTS = 0"], Compared.SAME)
    mixed = rows(PROFILE, [given[0], rendered(off)[0][1]])["onednn"]
    assert mixed.compared is Compared.DIFFERS


def test_what_was_in_force_stands_beside_each_other():
    threads, engine = Switch("OMP_NUM_THREADS", "1"), Switch("quantized engine", "x86")
    torch = (Switch("oneDNN", True), engine, threads)
    assert configurations.in_force([torch, (Switch("oneDNN", False), threads)]) == [
        Row("in force: oneDNN", "–", ["on", "off"], Compared.DIFFERS),
        Row("in force: quantized engine", "–", ["x86", None], Compared.NO_COUNTERPART),
        Row("in force: OMP_NUM_THREADS", "–", ["1", "1"], Compared.SAME),
    ]
    silent = (Switch("oneDNN", None),)
    assert configurations.in_force([torch[:1], silent]) == [
        Row("in force: oneDNN", "–", ["on", "not said"], Compared.NOT_RECORDED)
    ]
    assert [row.compared for row in configurations.in_force([torch[:1]])] == [Compared.ONE_TARGET]
    assert configurations.in_force([(), ()]) == []


def test_targets_of_one_engine_with_profiles_of_their_own_differ_where_these_do():
    given = [rendered(profile)[0][0] for profile in (PROFILE, replace(PROFILE, max_batch_size=1))]
    knobs = rows(PROFILE, [*given, given[0]])
    assert knobs["max_batch_size"].given == [f"batchSize = {size} requests" for size in (64, 1, 64)]
    assert knobs["max_batch_size"].compared is Compared.DIFFERS
    assert knobs["queue_capacity"].compared is Compared.SAME


def test_what_an_earlier_run_did_not_record_is_said():
    earlier = (Knob("batchSize", "batchSize", 64),)
    knobs = rows(PROFILE, [earlier, ()])
    assert {row.compared for row in knobs.values()} == {Compared.NOT_RECORDED}
    assert knobs["batchSize"].given == ["batchSize = 64", None]


def test_equal_delays_in_other_units_are_the_same():
    profile = ServingProfile(batch_timeout_ms=2.0)
    assert rows(profile, rendered(profile)[0])["batch_timeout_ms"].compared is Compared.SAME


def test_lines_of_rendered_files_are_marked_where_the_servers_differ():
    given, files = rendered(PROFILE)
    known = list(rows(PROFILE, given).values())

    def marks(name: str, knobs: tuple[Knob, ...]) -> dict[str, str]:
        return {line.text: line.knob for line in configurations.marked(files[name], knobs, known) if line.knob}

    batching = marks("batching.txt", given[1])
    assert batching["batch_timeout_micros { value: 2500 }"] == "batch_timeout_ms"
    assert "max_batch_size" in batching["max_batch_size { value: 64 }"]
    assert marks("flags.txt", given[1])["--grpc_max_threads=644"] == "front end, gRPC"
    properties = marks("config.properties", given[0])
    assert properties["job_queue_size=500"] == "queue_capacity"
    assert "batch_timeout_ms" in next(knob for line, knob in properties.items() if line.startswith("models="))
    assert not any(line.startswith("#") for line in properties)


def test_one_target_alone_has_nothing_to_compare_with():
    given, _ = rendered(PROFILE)
    assert {row.compared for row in rows(PROFILE, given[:1]).values()} == {Compared.ONE_TARGET}


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

"""Which engines there are, what each says of itself, and how little it takes to ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.problem import Problem
from serving.engines import registry
from serving.engines.engine import Ports, Site, Topic
from serving.profile import ServingProfile
from serving.target import PROTOCOLS
from tests.serving.targets import target

ROOT = Path(__file__).parents[3]


def test_every_engine_is_found_by_its_id_and_its_default_target():
    assert registry.ids() == (
        *("torchserve", "tensorflow-serving", "embedded-tfserving", "triton", "triton-torchscript"),
        *("open-inference", "http"),
    )
    for engine in registry.all():
        assert registry.engine(engine.id) is registry.find(engine.id) is registry.of_target(engine.default_target)
    assert [registry.of_target(name).id for name in registry.DEFAULT_TARGETS] == ["torchserve", "tensorflow-serving"]


def test_a_stand_in_says_for_whom_and_warns():
    stand_ins = {engine.id: engine.stands_in_for for engine in registry.all() if engine.stands_in_for}
    assert stand_ins == {"embedded-tfserving": "tensorflow-serving"}
    found = registry.stand_in(registry.engine("tensorflow-serving"))
    assert found is registry.engine("embedded-tfserving")
    assert found.warning
    assert found.title == "embedded-tfserving"  # never the production server's name
    assert registry.stand_in(registry.engine("torchserve")) is None


def test_an_unknown_engine_or_target_is_one_line_with_the_known_ones():
    assert registry.find("tritno") is None
    with pytest.raises(Problem, match="engine 'tritno': use one of torchserve, tensorflow-serving, embedded-tfserving"):
        registry.engine("tritno")
    with pytest.raises(Problem, match="target 'jax': use one of pytorch, tensorflow, embedded-tfserving"):
        registry.of_target("jax")


@pytest.mark.parametrize("id", [engine.id for engine in registry.startable()])
def test_an_engine_speaks_its_protocols_and_states_facts(id):
    engine = registry.engine(id)
    assert engine.protocols == PROTOCOLS
    for protocol in engine.protocols:
        call = engine.call(target("pytorch" if id == "torchserve" else "tensorflow"), protocol)
        assert call.path.startswith("/")
        assert bool(call.content_type) == (protocol != "grpc")
    assert engine.metrics_path.startswith("/")
    assert {fact.topic for fact in engine.facts} == set(Topic)
    assert all(fact.url.startswith("https://") and fact.source for fact in engine.facts)


@pytest.mark.parametrize(
    ("id", "protocols"), [("open-inference", ("grpc", "rest", "rest-binary")), ("http", ("rest",))]
)
def test_an_engine_that_can_only_be_an_endpoint_says_so_instead_of_starting(id, protocols, tmp_path):
    engine = registry.engine(id)
    assert (engine.protocols, engine.endpoint_only, engine.default_target) == (protocols, True, id)
    for start in (
        engine.version,
        lambda: engine.render(ServingProfile(), [], Site("", Ports(0, 0, 0), "", "", 1)),
        lambda: engine.launch([], ServingProfile(), tmp_path, ports=Ports(0, 0, 0), cores=()),
    ):
        with pytest.raises(Problem, match=f"{id}: Tandem starts no such server; give the target a url"):
            start()


def test_a_module_of_the_user_s_own_joins_them(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from serving.engines.torchserve.engine import TorchServe\n"
        "class Mine(TorchServe):\n    id = title = default_target = 'mine'\nENGINE = Mine()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TANDEM_ENGINES", "mine")
    assert registry.ids()[-1] == "mine"
    assert registry.of_target("mine") is registry.engine("mine")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "engine module nowhere: .*No module named"),
        ("", "engine module nowhere: .*ENGINE"),
        ("from serving.engines.torchserve import ENGINE", "nowhere calls its engine 'torchserve'"),
    ],
)
def test_a_module_that_brings_no_engine_is_named(text, said, tmp_path, monkeypatch):
    if text is not None:
        (tmp_path / "nowhere.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TANDEM_ENGINES", "nowhere")
    monkeypatch.delitem(sys.modules, "nowhere", raising=False)
    registry._load.cache_clear()
    registry._further.cache_clear()
    with pytest.raises(Problem, match=said):
        registry.all()
    monkeypatch.delitem(sys.modules, "nowhere", raising=False)


def test_finding_an_engine_imports_the_standard_library_alone():
    """In the containers, a health check does it beside a server that is measured, without our packages."""
    code = (
        "import sys\nbefore = set(sys.modules)\n"
        "from serving.engines import registry\nregistry.all()\n"
        "tops = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(tops - set(sys.stdlib_module_names) - {'serving', 'models'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

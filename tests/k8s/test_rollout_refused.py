"""A roll-out while the load generator has a job: the real agent, reached as in a cluster."""

from __future__ import annotations

import json
import threading

import pytest

from loadtest.generator import agent as agents
from models.problem import Problem
from serving import ports
from serving.runtimes.kubernetes import load_generator
from serving.runtimes.kubernetes.kubectl import Cluster, program
from tests.k8s.conftest import KUBECTL

pytestmark = pytest.mark.slow
JOBS = load_generator.jobs  # the fixture `run` puts another one in its place


@pytest.fixture
def results(api, tmp_path, monkeypatch):
    """The folder of an agent's jobs, to which kubectl's port-forward leads."""
    folder = tmp_path / "there"
    agent = agents.Agent(folder, master_port=ports.free(1)[0], exporter_port=ports.free(1)[0])
    service = agents.server(agent, ports.LOOPBACK, 0)
    thread = threading.Thread(target=service.serve_forever, daemon=True)
    thread.start()
    forward = {"deployment/locust-master": {"9647": f"{ports.LOOPBACK}:{service.server_address[1]}"}}
    (tmp_path / "forward.json").write_text(json.dumps(forward))
    monkeypatch.setenv("TANDEM_TEST_FORWARD", str(tmp_path / "forward.json"))
    monkeypatch.setenv("TANDEM_TEST_KUBECTL", program())
    monkeypatch.setenv("KUBECTL", str(KUBECTL))
    yield folder
    service.shutdown()
    service.server_close()
    agent.close()
    thread.join()


def job(results, name: str, state: str) -> None:
    (results / "jobs" / name).mkdir(parents=True)
    (results / "jobs" / name / "job.json").write_text("{}")
    (results / "jobs" / name / "state.txt").write_text(state)


def test_a_rollout_refuses_while_a_job_exists_and_says_what_to_do(api, results, run, bundle, monkeypatch, capsys):
    assert run("deploy") == 0
    monkeypatch.setattr(load_generator, "jobs", JOBS)
    versions = [str(version) for version in (7, 8)]
    assert run("rollout", "--model-version", versions[0]) == 1
    assert "no such bundle" in capsys.readouterr().err  # nothing measures: it goes on to what is wrong
    job(results, "20261125-101500-default.pytorch-r1-1", "running")
    job(results, "20261125-101500-default.tensorflow-r1-1", "ended")
    api.writes.clear()
    assert run("rollout", "--model-version", versions[1]) == 1
    said = capsys.readouterr().err
    assert "the load generator has 2 jobs (above), which a roll-out would end, with all that is not home yet" in said
    assert "20261125-101500-default.pytorch-r1-1 runs\n" in said
    assert "20261125-101500-default.tensorflow-r1-1 is done, and not collected\n" in said
    assert "make collect RUN=results/20261125-101500-default; --even-so (make: ARGS=--even-so) goes on" in said
    assert api.writes == []
    assert run("rollout", "--model-version", versions[1], "--even-so") == 1
    assert "no such bundle" in capsys.readouterr().err


def test_a_load_generator_that_cannot_be_asked_may_measure(api, results, run, tmp_path, monkeypatch):
    assert run("deploy") == 0
    monkeypatch.setattr(load_generator, "jobs", JOBS)
    monkeypatch.setattr(load_generator, "ASKED_S", 0.3)
    (nobody,) = ports.free(1)
    forward = {"deployment/locust-master": {"9647": f"{ports.LOOPBACK}:{nobody}"}}
    (tmp_path / "forward.json").write_text(json.dumps(forward))
    with pytest.raises(Problem, match=r"whether the load generator measures is not known .*--even-so"):
        load_generator.require_idle(Cluster())
    api.find("deployments", "locust-master")["status"]["availableReplicas"] = 0
    load_generator.require_idle(Cluster())  # one that is not up has no job

"""The verbs against a stand-in of the API server, with the real kubectl and the real manifests."""

from __future__ import annotations

import re

import pytest

from serving.runtimes.kubernetes import servers
from tests.k8s.api_server import ApiServer

pytestmark = [pytest.mark.slow, pytest.mark.beside]

THREE = "torchserve,tensorflow-serving,triton"


def version(api: ApiServer, name: str) -> str:
    return str(api.find("deployments", name)["spec"]["template"]["metadata"]["annotations"]["tandem.dev/model-version"])


def test_deploy_applies_everything_and_waits(api, run, capsys):
    assert run("deploy", "--overlay", "cpu") == 0
    assert {"torchserve", "tensorflow-serving", "prometheus", "grafana", "locust-master"} <= api.names("deployments")
    image = api.find("deployments", "torchserve")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "tandem/torchserve:1"
    told = capsys.readouterr()
    assert "torchserve 2/2" in told.err
    assert "port-forward service/grafana 3000" in told.out


def test_deploy_sets_registry_and_version_in_every_image_of_ours(api, run):
    assert run("deploy", "--overlay", "local", "--registry", "registry.example.com/team", "--embedded") == 0
    images = {
        name: api.find("deployments", name)["spec"]["template"]["spec"]["containers"][0]["image"]
        for name in ("torchserve", "tensorflow-serving", "locust-worker")
    }
    assert images == {
        "torchserve": "registry.example.com/team/tandem/torchserve:1",
        "tensorflow-serving": "registry.example.com/team/tandem/embedded-tfserving:1",
        "locust-worker": "registry.example.com/team/tandem/loadtest:1",
    }


def test_the_servers_configuration_is_rendered_for_the_cpus_of_the_overlay(api, run):
    assert run("deploy", "--overlay", "local", "--set", "max_batch_size=64") == 0
    (config,) = [
        api.objects[key]["data"] for key in api.objects if key[0] == "configmaps" and "torchserve-config" in key[2]
    ]
    assert "number_of_netty_threads=1\n" in config["config.properties"]  # one CPU
    assert '"batchSize": 64' in config["config.properties"]
    assert config["predict.http"].startswith("POST /predictions/convnet/1 ")


def test_a_second_deploy_changes_nothing(api, run, capsys):
    assert run("deploy") == 0
    before = {name: api.find("deployments", name)["metadata"]["generation"] for name in api.names("deployments")}
    capsys.readouterr()
    assert run("plan") == 0
    assert "nothing would change" in capsys.readouterr().err
    assert run("deploy") == 0
    assert {name: api.find("deployments", name)["metadata"]["generation"] for name in before} == before


def test_the_plan_shows_the_difference_and_touches_nothing(api, run, capsys):
    assert run("plan") == 0
    assert "+ Deployment torchserve" in capsys.readouterr().out
    assert api.writes == []
    assert run("deploy") == 0
    api.writes.clear()
    capsys.readouterr()
    assert run("plan", "--set", "max_batch_size=16") == 0
    told = capsys.readouterr()
    assert '"batchSize": 16' in told.out
    assert "to apply this: make deploy" in told.err
    assert api.writes == []


def test_the_plan_needs_no_cluster(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert run("plan", "--overlay", "gpu") == 0
    told = capsys.readouterr()
    assert "+ DaemonSet dcgm-exporter" in told.out
    assert "nothing to compare with" in told.err
    assert re.search(r"asks for \d+\.\d CPUs, \d+\.\d GiB of memory, 4 GPUs", told.err)
    assert (tmp_path / "rendered" / "gpu" / "kustomization.yaml").is_file()


def test_what_is_no_longer_part_of_it_is_removed(api, run):
    assert run("deploy", "--overlay", "cpu", "--components", "autoscaling") == 0
    assert api.names("horizontalpodautoscalers") == {"torchserve", "tensorflow-serving"}
    assert run("deploy", "--overlay", "cpu") == 0
    assert api.names("horizontalpodautoscalers") == set()
    assert "torchserve" in api.names("deployments")


def test_rollout_brings_both_servers_to_the_version_and_back(api, run, next_version, capsys):
    assert run("deploy") == 0
    next_version()
    assert run("rollout", "--model-version", "2") == 0
    assert {version(api, name) for name in ("torchserve", "tensorflow-serving")} == {"2"}
    image = api.find("deployments", "tensorflow-serving")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "tandem/tensorflow-serving:2"
    assert run("rollout", "--back") == 0
    assert {version(api, name) for name in ("torchserve", "tensorflow-serving")} == {"1"}
    assert "both servers serve convnet version 1" in capsys.readouterr().out


def test_a_rollout_keeps_what_was_deployed(api, run, next_version):
    assert run("deploy", "--overlay", "cpu", "--registry", "registry.example.com", "--components", "autoscaling") == 0
    next_version()
    assert run("rollout", "--model-version", "2") == 0
    assert api.names("horizontalpodautoscalers") == {"torchserve", "tensorflow-serving"}
    image = api.find("deployments", "torchserve")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry.example.com/tandem/torchserve:2"


def test_a_rollout_that_fails_on_one_server_brings_both_back(api, run, next_version, capsys):
    assert run("deploy") == 0
    next_version()

    def broken(deployment):
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        if image != "tandem/tensorflow-serving:2":
            return None
        waiting = {"reason": "ImagePullBackOff", "message": "manifest unknown"}
        return {"containerStatuses": [{"image": image, "state": {"waiting": waiting}}]}

    api.fate = broken
    assert run("rollout", "--model-version", "2") == 1
    assert {version(api, name) for name in ("torchserve", "tensorflow-serving")} == {"1"}
    told = capsys.readouterr().err
    assert "version 2 did not roll out, both servers serve version 1 again" in told
    assert "manifest unknown" in told
    capsys.readouterr()
    assert run("rollout", "--model-version", "1") == 1  # the record says 1 as well
    assert "what both servers serve already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model-version", "2"], "nothing is deployed on test: make deploy first"),
        (["--back"], "nothing is deployed on test: make deploy first"),
    ],
)
def test_nothing_to_roll(api, run, capsys, arguments, message):
    assert run("rollout", *arguments) == 1
    assert message in capsys.readouterr().err


def test_a_version_that_cannot_be_rolled_out(api, run, capsys):
    assert run("deploy") == 0
    for arguments, message in (
        ([], "which version? MODEL_VERSION=N, or BACK=1"),
        (["--back"], "there is no version before"),
        (["--model-version", "1"], "version 1 is what both servers serve already"),
        (["--model-version", "7"], "no such bundle; there are versions 1"),
    ):
        assert run("rollout", *arguments) == 1
        assert message in capsys.readouterr().err


def test_a_version_of_another_precision_is_not_rolled_out_but_deployed(api, run, next_version, capsys):
    assert run("deploy") == 0
    next_version(precision="bf16")
    assert run("rollout", "--model-version", "2") == 1
    told = capsys.readouterr().err
    assert "error: version 2 computes in bf16, and what is deployed serves fp32: a roll-out changes the version" in told
    assert version(api, "torchserve") == "1"
    assert run("deploy", "--model-version", "2") == 0
    assert version(api, "torchserve") == "2"
    assert run("rollout", "--back") == 1  # the version before is of the other precision
    assert "there is no version before" in capsys.readouterr().err


def test_undeploy_leaves_nothing(api, run, capsys):
    assert run("deploy", "--components", "") == 0
    assert run("undeploy") == 0
    assert {name for kind, _, name in api.objects if kind not in ("nodes", "storageclasses")} == set()
    assert "everything is removed from test" in capsys.readouterr().out
    assert run("undeploy") == 0
    assert "nothing was deployed on test" in capsys.readouterr().out


def test_undeploy_leaves_a_namespace_of_somebody_else(api, run, capsys):
    api.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tandem", "labels": {}}})
    assert run("undeploy") == 1
    assert "namespace tandem on test was not made by make deploy" in capsys.readouterr().err
    assert "tandem" in api.names("namespaces")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--overlay", "tpu"], "OVERLAY=tpu: no such overlay; use cpu, gpu, local"),
        (["--components", "istio"], "COMPONENTS=istio: no such component; use autoscaling, "),
        (["--components", "loadtest,autoscaling"], "one fixes the replicas, the other changes them"),
        (["--set", "max_batch_size=many"], "--set max_batch_size=many: use KEY=VALUE"),
        (["--set", "batch=1"], "profile.batch: unknown key"),
        (["--set", "onednn=on"], "profile.onednn = 'on': use true, false or 'default'"),
        (["--registry", "https://registry.example.com/team"], "use HOST/TEAM or HOST:PORT/TEAM"),
        (["--registry", "registry.example.com/Team"], "the team in lower case and no https://"),
        (["--model", "vgg"], "no bundle there; make export first"),
        (["--engines", "triton"], "ENGINES=triton: torchserve, tensorflow-serving are part of every deployment"),
        (["--engines", "torchserve,tensorflow"], "engine 'tensorflow': use one of torchserve, "),
        (["--engines", f"{THREE}-torchscript"], "has no Deployment in k8s/"),
    ],
)
def test_a_wrong_word_on_the_command_line(api, run, capsys, arguments, message):
    assert run("deploy", *arguments) == 1
    assert message in capsys.readouterr().err
    assert api.writes == []


def test_a_third_engine_comes_in_where_it_is_named_and_is_rolled_out_with_the_others(api, run, next_version, capsys):
    assert run("deploy", "--engines", THREE, "--components", "loadtest", "--registry", "registry.example.com/team") == 0
    deployment = api.find("deployments", "triton")["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    others = api.find("deployments", "torchserve")["spec"]
    assert container["image"] == "registry.example.com/team/tandem/triton:1"
    assert container["resources"] == others["template"]["spec"]["containers"][0]["resources"]
    assert (deployment["replicas"], others["replicas"]) == (1, 1)
    assert (
        "requiredDuringSchedulingIgnoredDuringExecution"
        in deployment["template"]["spec"]["affinity"]["podAntiAffinity"]
    )
    (files,) = [api.objects[key]["data"] for key in api.objects if key[0] == "configmaps" and "triton-config" in key[2]]
    assert files["predict.http"].startswith("POST /v2/models/convnet/versions/1/infer ")
    assert 'backend: "onnxruntime"' in files["convnet.pbtxt"]
    assert "dims: [10]" in files["convnet.pbtxt"]
    assert '"version": "1"' in files["repository.json"]
    assert "triton 1/1" in capsys.readouterr().err
    next_version()
    assert run("rollout", "--model-version", "2") == 0
    assert {version(api, name) for name in ("torchserve", "tensorflow-serving", "triton")} == {"2"}
    assert "all 3 servers serve convnet version 2" in capsys.readouterr().out
    assert run("deploy", "--components", "loadtest", "--registry", "registry.example.com/team") == 0
    assert "triton" not in api.names("deployments")
    assert "triton" not in api.names("services")


def test_engines_by_name():
    assert servers.named(["tensorflow-serving", "torchserve"]) == ((), False)
    assert servers.named(["torchserve", "embedded-tfserving", "triton"]) == (("triton",), True)

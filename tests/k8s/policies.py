"""What the manifests promise: one function a promise, which yields a line for each way in which objects break it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.k8s.rendered import Object, find, pod_specs, the

SERVERS = {
    "torchserve": {"grpc": 7070, "rest": 8080, "metrics": 8082},
    "tensorflow-serving": {"grpc": 8500, "rest": 8501},
}
OPTIONAL = {"triton": {"grpc": 8001, "rest": 8000, "metrics": 8002}}  # where its component brings it
MANAGEMENT = (8081, 7071)
ENTRY_POINT_S = 2  # its pause after SIGTERM
LEAST_PRE_STOP_S = 8  # a rolling update was seen to lose nothing from here on
PREDICTION = re.compile(
    r"POST (/predictions/\w+/\d+|/v1/models/\w+/versions/\d+:predict|/v2/models/\w+/versions/\d+/infer) HTTP"
)
CLIENT_NOTICES_S = 30 + 5  # gRPC's shortest pause between two questions to DNS, and the age of DNS' answer

Policy = Callable[[list[Object]], Iterator[str]]
POLICIES: dict[str, Policy] = {}


def promise(policy: Policy) -> Policy:
    POLICIES[policy.__name__] = policy
    return policy


def servers(objects: list[Object]) -> dict[str, dict[str, int]]:
    """The servers and their ports: those of every deployment, and the optional ones that are there."""
    there = {one["metadata"]["name"] for one in find(objects, "Deployment")}
    return {**SERVERS, **{name: ports for name, ports in OPTIONAL.items() if name in there}}


def server(objects: list[Object], name: str) -> Object:
    """The one container of a server's pods."""
    (container,) = pod_specs(objects)[name]["containers"]
    return container


def _files(objects: list[Object], name: str) -> dict[str, str]:
    """What a server's pods find at /config."""
    volume = next(one for one in pod_specs(objects)[name]["volumes"] if one["name"] == "config")
    found: dict[str, str] = the(objects, "ConfigMap", volume["configMap"]["name"])["data"]
    return found


def bytes_of(quantity: str) -> float:
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 1e3, "M": 1e6, "G": 1e9, "m": 1e-3, "": 1}
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(quantity))
    assert found, quantity
    return float(found[1]) * units[found[2]]


@promise
def ready_means_that_the_model_version_answers_a_prediction(objects):
    for name in servers(objects):
        container = server(objects, name)
        for probe, word in (("startupProbe", "startup"), ("readinessProbe", "ready")):
            command = container.get(probe, {}).get("exec", {}).get("command")
            if command != ["/bin/bash", "/probe/probe.sh", word]:
                yield f"{name}: {probe} runs {command}"
        environment = {entry["name"]: entry.get("value") for entry in container["env"]}
        if environment.get("PORT") != str(servers(objects)[name]["rest"]):
            yield f"{name}: its probes ask port {environment.get('PORT')}"
        request = _files(objects, name)["predict.http"].split("\r\n")[0]
        if not PREDICTION.match(request):
            yield f"{name}: its probes send {request!r}, which is no prediction of one version"


@promise
def liveness_does_not_kill_what_is_only_overloaded(objects):
    for name in servers(objects):
        probe = server(objects, name).get("livenessProbe", {})
        if "exec" in probe or not ({"httpGet", "tcpSocket"} & set(probe)):
            yield f"{name}: liveness is {probe}"
        if probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3) < 60:
            yield f"{name}: liveness gives up within a minute"


@promise
def everything_has_startup_or_readiness_and_liveness_probes(objects):
    for name, spec in pod_specs(objects).items():
        for container in spec["containers"]:
            if name == "locust-worker":  # it serves nothing: it is a client of the master
                continue
            for probe in ("readinessProbe", "livenessProbe"):
                if probe not in container:
                    yield f"{name}: no {probe}"


@promise
def a_slow_start_is_not_a_death(objects):
    for name in servers(objects):
        probe = server(objects, name)["startupProbe"]
        if probe["periodSeconds"] * probe["failureThreshold"] < 300:
            yield f"{name}: startup is given less than five minutes"


@promise
def a_rollout_loses_no_request(objects):
    for name in servers(objects):
        command = server(objects, name).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
        pause = float(command[1]) if command[:1] == ["sleep"] else 0.0
        text = " ".join(value for one in find(objects, "ConfigMap") for value in one.get("data", {}).values())
        ages = re.findall(r"max[_-]connection[_-]age(?:_ms)?=(\d+)", text)
        if len(ages) != len(servers(objects)):
            yield "a server keeps gRPC connections for ever: clients would stay with a pod that stops"
            continue
        oldest = max(map(int, ages)) / 1000 * 1.1  # servers spread the age by 10 %
        if pause < max(LEAST_PRE_STOP_S, oldest + CLIENT_NOTICES_S):
            yield f"{name}: preStop waits {pause:g} s, clients need {oldest + CLIENT_NOTICES_S:g} s to leave"


@promise
def the_grace_period_covers_pre_stop_and_what_is_in_flight(objects):
    for name in servers(objects):
        pause = float(server(objects, name)["lifecycle"]["preStop"]["exec"]["command"][1])
        said = re.findall(r"exit-timeout-secs=(\d+)", _files(objects, name).get("flags.txt", ""))
        rest = ENTRY_POINT_S + int(said[0]) if said else 10
        if pod_specs(objects)[name].get("terminationGracePeriodSeconds", 30) < pause + rest:
            yield f"{name}: the grace period ends before preStop ({pause:g} s) and {rest} s for what is in flight"


@promise
def a_rollout_takes_no_capacity_away(objects):
    for name in servers(objects):
        deployment = the(objects, "Deployment", name)
        rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate", {})
        if rolling.get("maxUnavailable") != 0 or not rolling.get("maxSurge"):
            yield f"{name}: rolling update {rolling}"


@promise
def disruption_budgets_keep_servers_up_and_nodes_drainable(objects):
    for name in servers(objects):
        budgets = [
            one
            for one in find(objects, "PodDisruptionBudget")
            if one["spec"].get("selector", {}).get("matchLabels") == {"app.kubernetes.io/name": name}
        ]
        if [one["spec"].get("maxUnavailable") for one in budgets] != [1]:
            yield f"{name}: no budget of one unavailable pod ({len(budgets)} budgets)"


@promise
def replicas_spread_over_nodes_and_zones(objects):
    for name in servers(objects):
        spreads = {
            one["topologyKey"]: one["labelSelector"]["matchLabels"]
            for one in pod_specs(objects)[name].get("topologySpreadConstraints", [])
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone"):
            if spreads.get(key) != {"app.kubernetes.io/name": name}:
                yield f"{name}: does not spread over {key}: {spreads.get(key)}"


def _avoids(spec: Object, how: str) -> list[dict[str, str]]:
    terms = spec.get("affinity", {}).get("podAntiAffinity", {}).get(f"{how}DuringSchedulingIgnoredDuringExecution", [])
    terms = [term.get("podAffinityTerm", term) for term in terms]
    return [term["labelSelector"]["matchLabels"] for term in terms if term["topologyKey"] == "kubernetes.io/hostname"]


@promise
def servers_keep_away_from_each_other_and_from_the_load_generator(objects):
    # While measuring (one replica of each by the loadtest component) they must; else they would rather.
    measuring = bool(_avoids(pod_specs(objects)["locust-worker"], "required"))
    how = "required" if measuring else "preferred"
    for name in servers(objects):
        # What is optional keeps away from all others; the scheduler holds those to it, too.
        others = [{"app.kubernetes.io/name": other} for other in SERVERS if other != name]
        avoids = _avoids(pod_specs(objects)[name], how)
        for labels in (*others, {"app.kubernetes.io/component": "loadtest"}):
            if labels not in avoids:
                yield f"{name}: no {how} anti-affinity with {labels}"
    for name in ("locust-master", "locust-worker"):
        if {"app.kubernetes.io/component": "server"} not in _avoids(pod_specs(objects)[name], how):
            yield f"{name}: no {how} anti-affinity with the servers"


@promise
def servers_and_load_generator_are_guaranteed(objects):
    for name in (*servers(objects), "locust-master", "locust-worker"):
        for container in pod_specs(objects)[name]["containers"]:
            resources = container.get("resources", {})
            if not {"cpu", "memory"} <= set(resources.get("limits", {})) or (
                resources.get("requests") != resources.get("limits")
            ):
                yield f"{name}: requests {resources.get('requests')}, limits {resources.get('limits')}"


@promise
def both_servers_get_the_same(objects):
    seen = []
    for name in servers(objects):
        spec, container = pod_specs(objects)[name], server(objects, name)
        deployment = the(objects, "Deployment", name)["spec"]
        seen.append(
            {
                "resources": container["resources"],
                "replicas": deployment.get("replicas"),
                "strategy": deployment["strategy"],
                "nodeSelector": spec.get("nodeSelector"),
                "tolerations": spec.get("tolerations"),
                "runtimeClassName": spec.get("runtimeClassName"),
                "tmp": [volume.get("emptyDir") for volume in spec["volumes"] if volume["name"] == "tmp"],
                "grace": spec["terminationGracePeriodSeconds"],
                "preStop": container["lifecycle"],
                "startup": container["startupProbe"],
                "ready": container["readinessProbe"],
                "security": [spec["securityContext"], container["securityContext"]],
            }
        )
    for name, mine in list(zip(servers(objects), seen, strict=True))[1:]:
        for key, value in seen[0].items():
            if key == "grace" and name in OPTIONAL:
                if mine[key] < value:
                    yield f"{key}: torchserve has {value}, {name} {mine[key]}"
            elif mine[key] != value:
                yield f"{key}: torchserve has {value}, {name} {mine[key]}"


@promise
def everything_has_limits(objects):
    for name, spec in pod_specs(objects).items():
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            for kind in ("requests", "limits"):
                if not {"cpu", "memory"} <= set(container.get("resources", {}).get(kind, {})):
                    yield f"{name}/{container['name']}: {kind} {container.get('resources', {}).get(kind)}"
        for volume in spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{name}: volume {volume['name']} has no size limit"


@promise
def pods_are_as_restricted_as_pod_security_can_demand(objects):
    privileged = {
        one["metadata"]["name"]
        for one in find(objects, "Namespace")
        if one["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted"
    }
    if "tandem" in privileged:
        yield "the namespace tandem does not enforce the restricted level"
    for name, one in _pods(objects).items():
        spec = one["spec"]["template"]["spec"]
        if one["metadata"]["namespace"] not in privileged:
            yield from _root_and_volumes(name, spec)
        if spec.get("securityContext", {}).get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name}: no seccomp profile"
        if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{name}: shares a namespace with its node"
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            context = container.get("securityContext", {})
            if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
                yield f"{name}: may escalate privileges"
            if context.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{name}: capabilities {context.get('capabilities')}"
            if any("hostPort" in port for port in container.get("ports", [])):
                yield f"{name}: takes a port of its node"


def _root_and_volumes(name: str, spec: Object) -> Iterator[str]:
    pod = spec.get("securityContext", {})
    if not pod.get("runAsNonRoot") or not pod.get("runAsUser"):
        yield f"{name}: may run as root"
    for volume in spec.get("volumes", []):
        if not (set(volume) - {"name"}) <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected"}:
            yield f"{name}: volume {volume}"


@promise
def root_file_systems_are_read_only(objects):
    for name, spec in pod_specs(objects).items():
        for container in spec["containers"]:
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                yield f"{name}: its root file system can be written"


@promise
def no_pod_holds_a_token_of_the_api(objects):
    accounts = {one["metadata"]["name"]: one for one in find(objects, "ServiceAccount")}
    for name, spec in pod_specs(objects).items():
        account = accounts.get(spec.get("serviceAccountName", "default"), {})
        if account.get("automountServiceAccountToken") is not False:
            yield f"{name}: its service account {spec.get('serviceAccountName')} has a token, or is not ours"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name}: mounts a token"
    for kind in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        for one in find(objects, kind):
            yield f"{kind} {one['metadata']['name']}: nothing here needs the API"


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions", []):
        there = labels.get(term["key"])
        if term["operator"] == "In" and there not in term["values"]:
            return False
        if term["operator"] == "Exists" and there is None:
            return False
        if term["operator"] in ("NotIn", "DoesNotExist"):
            raise NotImplementedError(term)  # no manifest of ours uses them; one that did must not pass unseen
    return True


def _pods(objects: list[Object]) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] in ("Deployment", "DaemonSet", "Job")}


def _named_ports(workload: Object) -> dict[Any, int]:
    ports = [port for one in workload["spec"]["template"]["spec"]["containers"] for port in one.get("ports", [])]
    return {key: port["containerPort"] for port in ports for key in (port["name"], port["containerPort"])}


def _end(workload: Object, peers: list[Object] | None, own: str, spaces: dict[str, dict[str, str]]) -> bool:
    """Whether one of a rule's peers is this workload."""
    if not peers:
        return True
    labels = workload["spec"]["template"]["metadata"]["labels"]
    namespace = workload["metadata"]["namespace"]
    for peer in peers:
        if "namespaceSelector" in peer:
            space = {"kubernetes.io/metadata.name": namespace, **spaces.get(namespace, {})}
            if not _selects(peer["namespaceSelector"], space):
                continue
        elif namespace != own:
            continue
        if _selects(peer.get("podSelector", {}), labels):
            return True
    return False


def flows(objects: list[Object]) -> set[tuple[str, str, int]]:
    """(from, to, TCP port) of everything that the network policies let through between our own pods."""
    pods, found = _pods(objects), set()
    spaces = {one["metadata"]["name"]: one["metadata"]["labels"] for one in find(objects, "Namespace")}
    for source_name, source in pods.items():
        for name, pod in pods.items():
            for port in _tcp(objects, pod, "ingress", source, spaces, pod):
                if port in _tcp(objects, source, "egress", pod, spaces, pod):
                    found.add((source_name, name, port))
    return found


EVERY_PORT = tuple(
    sorted(
        {port for ports in (SERVERS | OPTIONAL).values() for port in ports.values()}
        | set(MANAGEMENT)
        | {5557, 9646, 9647, 9090, 9093, 3000, 9400, 22, 443}
    )
)


def _tcp(
    objects: list[Object], at: Object, direction: str, peer: Object, spaces: dict[str, dict[str, str]], owner: Object
) -> set[int]:
    labels, namespace = at["spec"]["template"]["metadata"]["labels"], at["metadata"]["namespace"]
    policies = [
        one
        for one in find(objects, "NetworkPolicy")
        if one["metadata"]["namespace"] == namespace
        and direction.capitalize() in one["spec"]["policyTypes"]
        and _selects(one["spec"]["podSelector"], labels)
    ]
    if not policies:
        return set(EVERY_PORT)
    allowed: set[int] = set()
    for policy in policies:
        for rule in policy["spec"].get(direction, []):
            if not _end(peer, rule.get("from" if direction == "ingress" else "to"), namespace, spaces):
                continue
            if "ports" not in rule:
                return set(EVERY_PORT)
            named = _named_ports(owner)
            allowed |= {
                named[port["port"]] if isinstance(port["port"], str) else port["port"]
                for port in rule["ports"]
                if port.get("protocol", "TCP") == "TCP" and (not isinstance(port["port"], str) or port["port"] in named)
            }
    return allowed


def expected_flows(objects: list[Object]) -> set[tuple[str, str, int]]:
    """The few flows that are needed."""
    pods = _pods(objects)
    wanted = {
        (source, name, ports[protocol])
        for source in ("locust-master", "locust-worker")
        for name, ports in servers(objects).items()
        for protocol in ("grpc", "rest")
    }
    wanted |= {(source, "locust-master", 5557) for source in ("locust-worker",)}
    if "prometheus" in pods:
        wanted |= {
            ("prometheus", "torchserve", 8082),
            ("prometheus", "tensorflow-serving", 8501),
            ("prometheus", "locust-master", 9646),
            ("prometheus", "alertmanager", 9093),
            ("prometheus", "grafana", 3000),
            ("grafana", "prometheus", 9090),
            ("grafana", "alertmanager", 9093),
        }
        wanted |= {("prometheus", name, OPTIONAL[name]["metrics"]) for name in pods if name in OPTIONAL}
        if "dcgm-exporter" in pods:
            wanted.add(("prometheus", "dcgm-exporter", 9400))
    return wanted


@promise
def every_namespace_denies_by_default(objects):
    for one in find(objects, "Namespace"):
        space = one["metadata"]["name"]
        denying = [
            policy
            for policy in find(objects, "NetworkPolicy")
            if policy["metadata"]["namespace"] == space
            and policy["spec"]["podSelector"] == {}
            and set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
            and not policy["spec"].get("egress")
        ]
        if not denying:
            yield f"namespace {space}: nothing denies what no policy names"


@promise
def only_the_needed_flows_are_open(objects):
    found, wanted = flows(objects), expected_flows(objects)
    for source, name, port in sorted(found - wanted):
        yield f"{source} may reach {name}:{port}"
    for source, name, port in sorted(wanted - found):
        yield f"{source} cannot reach {name}:{port}"


@promise
def nobody_reaches_a_management_port(objects):
    for name, spec in pod_specs(objects).items():
        for container in spec["containers"]:
            for port in container.get("ports", []):
                if port["containerPort"] in MANAGEMENT:
                    yield f"{name} declares {port}"
    for one in find(objects, "Service"):
        for port in one["spec"]["ports"]:
            if {port["port"], port.get("targetPort")} & set(MANAGEMENT):
                yield f"service {one['metadata']['name']} publishes {port}"
    for _, name, port in flows(objects):
        if port in MANAGEMENT:
            yield f"a policy opens {name}:{port}"
    for one in find(objects, "ConfigMap"):
        for line in one.get("data", {}).get("config.properties", "").splitlines():
            if line.startswith(("management_address", "grpc_management_address")) and "127.0.0.1" not in line:
                yield f"TorchServe listens with {line}"


@promise
def images_are_by_version_tag_or_digest(objects):
    for name, spec in pod_specs(objects).items():
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            image = container["image"]
            tag = re.search(r":([\w][\w.-]*)$", image)
            digest = re.search(r"@sha256:[0-9a-f]{64}$", image)
            if not digest and (not tag or tag[1] == "latest" or not re.search(r"\d", tag[1])):
                yield f"{name}: image {image}"
            if container.get("imagePullPolicy") != "IfNotPresent":
                yield f"{name}: imagePullPolicy {container.get('imagePullPolicy')}"


@promise
def grpc_clients_see_every_replica(objects):
    for name, ports in servers(objects).items():
        service = the(objects, "Service", name)["spec"]
        if service.get("clusterIP") != "None":
            yield f"{name}: its Service is not headless"
        if {port["name"]: port["port"] for port in service["ports"]}.get("grpc") != ports["grpc"]:
            yield f"{name}: its headless Service has no port grpc"


@promise
def services_lead_to_containers(objects):
    for service in find(objects, "Service"):
        name, spec = service["metadata"]["name"], service["spec"]
        pods = [
            pod
            for pod in _pods(objects).values()
            if pod["metadata"]["namespace"] == service["metadata"]["namespace"]
            and _selects({"matchLabels": spec["selector"]}, pod["spec"]["template"]["metadata"]["labels"])
        ]
        if len(pods) != 1:
            yield f"service {name} selects {[pod['metadata']['name'] for pod in pods]}"
            continue
        for port in spec["ports"]:
            if port["targetPort"] not in _named_ports(pods[0]):
                yield f"service {name}: no container port {port['targetPort']}"


@promise
def nothing_is_open_to_the_world_unless_the_ingress_component_says_so(objects):
    for one in find(objects, "Service"):
        if one["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield f"service {one['metadata']['name']} is of type {one['spec']['type']}"
    routes = [one for kind in ("HTTPRoute", "GRPCRoute") for one in find(objects, kind)]
    for one in routes:
        for rule in one["spec"]["rules"]:
            if not rule.get("matches"):
                yield f"{one['kind']} {one['metadata']['name']} lets every path through"


@promise
def workloads_select_their_own_pods(objects):
    for name, one in _pods(objects).items():
        labels = one["spec"]["template"]["metadata"]["labels"]
        if not _selects(one["spec"]["selector"], labels):
            yield f"{name}: its selector does not match its pods"
        for other, pod in _pods(objects).items():
            if other != name and _selects(one["spec"]["selector"], pod["spec"]["template"]["metadata"]["labels"]):
                yield f"{name} selects the pods of {other}"


@promise
def what_pods_mount_is_there(objects):
    for one in _pods(objects).values():
        spec, space = one["spec"]["template"]["spec"], one["metadata"]["namespace"]
        for volume in spec.get("volumes", []):
            for key, kind, field in (
                ("configMap", "ConfigMap", "name"),
                ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
            ):
                if key not in volume or volume[key].get("optional"):
                    continue
                there = find(objects, kind, volume[key][field])
                if [known["metadata"]["namespace"] for known in there] != [space]:
                    yield f"{one['metadata']['name']}: no {kind} {volume[key][field]}"
        mounted = {mount["name"] for container in spec["containers"] for mount in container.get("volumeMounts", [])}
        if mounted != {volume["name"] for volume in spec.get("volumes", [])}:
            yield f"{one['metadata']['name']}: volumes and mounts differ"


@promise
def an_autoscaler_owns_its_replica_count(objects):
    for scaler in find(objects, "HorizontalPodAutoscaler"):
        name, spec = scaler["metadata"]["name"], scaler["spec"]
        if "replicas" in the(objects, "Deployment", spec["scaleTargetRef"]["name"])["spec"]:
            yield f"{name}: an apply would put the replicas back"
        if spec.get("minReplicas", 1) < 2 or spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] < 120:
            yield f"{name}: scales down to one, or at once"


@promise
def gpus_go_to_gpu_nodes(objects):
    for name in servers(objects):
        spec, resources = pod_specs(objects)[name], server(objects, name)["resources"]
        gpu = resources["limits"].get("nvidia.com/gpu")
        image = server(objects, name)["image"]
        if gpu is None:
            continue
        if gpu != "1" or resources["requests"].get("nvidia.com/gpu") != "1":
            yield f"{name}: GPUs {resources}"
        if spec.get("nodeSelector", {}).get("nvidia.com/gpu.present") != "true":
            yield f"{name}: wants a GPU on any node"
        if not any(one.get("key") == "nvidia.com/gpu" for one in spec.get("tolerations", [])):
            yield f"{name}: does not tolerate the taint of GPU nodes"
        if not re.search(r":.*-gpu$|@sha256", image):
            yield f"{name}: a GPU for the CPU image {image}"


@promise
def everything_is_ours_by_label_and_in_our_namespaces(objects):
    for one in objects:
        what = f"{one['kind']} {one['metadata']['name']}"
        if one["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") != "tandem":
            yield f"{what}: no label part-of"
        if one["kind"] != "Namespace" and one["metadata"].get("namespace") not in ("tandem", "tandem-dcgm"):
            yield f"{what}: namespace {one['metadata'].get('namespace')}"


@promise
def the_quota_holds_what_is_asked_for(objects):
    hard = the(objects, "ResourceQuota", "tandem")["spec"]["hard"]
    peak: dict[str, float] = {}
    scalers = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]["maxReplicas"]
        for one in find(objects, "HorizontalPodAutoscaler")
    }
    for name, one in _pods(objects).items():
        if one["metadata"]["namespace"] != "tandem":
            continue
        replicas = scalers.get(name, one["spec"].get("replicas", 1))
        surge = one["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge", 0)
        peak["pods"] = peak.get("pods", 0) + replicas + surge
        for container in one["spec"]["template"]["spec"]["containers"]:
            for kind in ("requests", "limits"):
                for resource, amount in container["resources"][kind].items():
                    key = f"{kind}.{resource}"
                    peak[key] = peak.get(key, 0) + (replicas + surge) * bytes_of(amount)
    for key, limit in hard.items():
        if peak.get(key, 0) > bytes_of(limit):
            yield f"quota {key} = {limit}, at most {peak[key]:g} is asked for"

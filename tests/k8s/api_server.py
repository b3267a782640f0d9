"""The part of a Kubernetes API server that the verbs talk to, for the real kubectl: discovery, applies, reads, deletes,
access reviews, pods' logs; and the controllers' part, with the faults that a test asks for.

It stands in where no cluster is there (KUBECONFIG): it checks no schema and merges nothing, an apply replaces.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.k8s.rbac import Access, Request

Object = dict[str, Any]
REVISION = "deployment.kubernetes.io/revision"
GENERATION = "deprecated.daemonset.template.generation"
CONTROLLERS = (REVISION, GENERATION)
NEVER_PATCHED = ("SelfSubjectAccessReview",)
REVIEWED = ("resource", "subresource", "namespace", "name")
# group/version -> (kind, plural, namespaced)
KINDS: dict[str, list[tuple[str, str, bool]]] = {
    "v1": [
        ("Namespace", "namespaces", False),
        ("Node", "nodes", False),
        ("Pod", "pods", True),
        ("Service", "services", True),
        ("ServiceAccount", "serviceaccounts", True),
        ("ConfigMap", "configmaps", True),
        ("Event", "events", True),
        ("ResourceQuota", "resourcequotas", True),
        ("LimitRange", "limitranges", True),
        ("PersistentVolumeClaim", "persistentvolumeclaims", True),
    ],
    "apps/v1": [
        ("Deployment", "deployments", True),
        ("ReplicaSet", "replicasets", True),
        ("DaemonSet", "daemonsets", True),
    ],
    "storage.k8s.io/v1": [("StorageClass", "storageclasses", False)],
    "policy/v1": [("PodDisruptionBudget", "poddisruptionbudgets", True)],
    "autoscaling/v2": [("HorizontalPodAutoscaler", "horizontalpodautoscalers", True)],
    "networking.k8s.io/v1": [("NetworkPolicy", "networkpolicies", True)],
    "apiextensions.k8s.io/v1": [("CustomResourceDefinition", "customresourcedefinitions", False)],
    "authorization.k8s.io/v1": [("SelfSubjectAccessReview", "selfsubjectaccessreviews", False)],
}


def node(name: str, *, cpu: str = "16", memory: str = "64Gi", gpus: int = 0, **labels: str) -> Object:
    """A node that is ready."""
    gpu: Object = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    known = {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.product": "Tesla-T4"} if gpus else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**known, **labels}},
        "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]} if gpus else {},
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory, "ephemeral-storage": "100Gi", **gpu},
            "conditions": [{"type": "Ready", "status": "True"}],
            "capacity": {"cpu": cpu, "memory": memory, **gpu},
            "nodeInfo": {
                "kernelVersion": "6.1.0-28-amd64",
                "kubeletVersion": "v1.36.2",
                "containerRuntimeVersion": "containerd://2.1.4",
                "osImage": "Debian GNU/Linux 12 (bookworm)",
            },
        },
    }


def storage_class(name: str, *, default: bool = False) -> Object:
    """A class of disks."""
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": "rancher.io/local-path",
    }


class ApiServer:
    """The state: objects by (plural, namespace, name), and what goes wrong."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.version = "v1.36.2"
        self.writes: list[str] = []
        self.refused: set[tuple[str, str]] = set()  # (verb, resource) that the user may not
        self.access: Access | None = None  # what the user was given; None: everything
        self.silent = threading.Event()  # it takes connections and never answers, as where packets are dropped
        self.holds = ""  # what keeps a namespace that is deleted
        self.looks = 0  # how often somebody has looked at the pods
        self.looked: Callable[[int], None] = lambda times: None
        self.only_namespaces = False  # the user may read within namespaces alone
        self.logs: dict[str, str] = {}  # of a Deployment's or DaemonSet's pods
        # What a workload's pods come to: a function of the Deployment or DaemonSet gives the container's status, or
        # None: it runs.
        self.fate: Callable[[Object], Object | None] = lambda workload: None
        self.replica_failure: dict[str, str] = {}  # Deployment or DaemonSet to the message why no pod can be made
        self.slow = False  # a workload's pods are ready only once somebody has seen that they are not
        self._starting: list[str] = []  # Deployments whose pods are ready at the next look
        self._revisions: dict[str, list[str]] = {}  # templates of each Deployment, the newest last
        self.unauthorized = False
        self.pod_security: str = ""  # a warning that an apply of a Deployment gets
        self.crds: set[str] = set()
        self._lock = threading.Lock()
        for one in (node("node-1"), node("node-2"), storage_class("standard", default=True)):
            self.add(one)

    def kinds(self) -> dict[str, list[tuple[str, str, bool]]]:
        known = dict(KINDS)
        if "monitoring.coreos.com" in self.crds:
            known["monitoring.coreos.com/v1"] = [
                ("ServiceMonitor", "servicemonitors", True),
                ("PrometheusRule", "prometheusrules", True),
            ]
        if "gateway.networking.k8s.io" in self.crds:
            known["gateway.networking.k8s.io/v1"] = [
                ("HTTPRoute", "httproutes", True),
                ("GRPCRoute", "grpcroutes", True),
            ]
        return known

    def plural(self, kind: str) -> str:
        return next(plural for kinds in self.kinds().values() for name, plural, _ in kinds if name == kind)

    def add(self, one: Object) -> None:
        """Put an object into the cluster, as it is."""
        metadata = one["metadata"]
        metadata.setdefault("uid", str(uuid.uuid4()))
        self.objects[self.plural(one["kind"]), metadata.get("namespace", ""), metadata["name"]] = one

    def remove(self, plural: str, name: str) -> None:
        for key in [key for key in self.objects if key[0] == plural and key[2] == name]:
            del self.objects[key]

    def find(self, plural: str, name: str) -> Object:
        """One object, whatever its namespace."""
        (found,) = [one for key, one in self.objects.items() if key[0] == plural and key[2] == name]
        return found

    def pod(self, deployment: str) -> Object:
        """The only pod of a Deployment."""
        (found,) = [
            one
            for key, one in self.objects.items()
            if key[0] == "pods" and re.fullmatch(rf"{deployment}-\w+-\d+", key[2])
        ]
        return found

    def replace_pod(self, deployment: str) -> None:
        """What comes of `kubectl delete pod`: the ReplicaSet has made another one."""
        before = self.pod(deployment)
        self.remove("pods", before["metadata"]["name"])
        again = copy.deepcopy(before)
        again["metadata"] |= {"name": f"{deployment}-abc-{len(self.writes)}", "uid": str(uuid.uuid4())}
        again["status"]["containerStatuses"] = _running({"spec": again["spec"]})
        self.add(again)

    def restart_container(self, deployment: str, reason: str, exit_code: int) -> None:
        """What the kubelet makes of a container that has died."""
        (status,) = self.pod(deployment)["status"]["containerStatuses"]
        ended = {"reason": reason, "exitCode": exit_code, "containerID": status["containerID"]}
        status |= {
            "restartCount": status["restartCount"] + 1,
            "containerID": f"containerd://{uuid.uuid4().hex}",
            "lastState": {"terminated": ended},
        }

    def names(self, plural: str) -> set[str]:
        return {name for kind, _, name in self.objects if kind == plural}

    def put(self, plural: str, one: Object, *, dry_run: bool) -> Object:
        """What an apply does."""
        key = (plural, one["metadata"].get("namespace", ""), one["metadata"]["name"])
        with self._lock:
            before = self.objects.get(key)
            stored = copy.deepcopy(one)
            metadata = stored["metadata"]
            metadata["uid"] = before["metadata"]["uid"] if before else str(uuid.uuid4())
            generation = before["metadata"].get("generation", 1) if before else 0
            metadata["generation"] = generation + (not before or before.get("spec") != stored.get("spec"))
            for annotation, text in (before or {"metadata": {}})["metadata"].get("annotations", {}).items():
                if annotation in CONTROLLERS:  # theirs, which an apply leaves alone
                    metadata.setdefault("annotations", {})[annotation] = text
            if before and "status" in before:
                stored["status"] = before["status"]
            metadata["resourceVersion"] = "1"
            metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
            if dry_run:
                return stored
            self.writes.append(f"{plural}/{key[2]}")
            self.objects[key] = stored
            if plural == "deployments":
                self._control_deployment(stored)
            elif plural == "daemonsets":
                self._control_daemon_set(stored)
            return stored

    def _control_deployment(self, deployment: Object) -> None:
        """The Deployment's and ReplicaSet's controllers, the scheduler and the kubelet, all at once.

        Pods of a new revision that do not come up leave as many old ones as the strategy says.
        """
        metadata, wanted = deployment["metadata"], deployment["spec"].get("replicas", 1)
        name, space = metadata["name"], metadata["namespace"]
        known = self._revisions.setdefault(name, [])
        before = int(metadata.get("annotations", {}).get(REVISION, 0))
        template = json.dumps(deployment["spec"]["template"], sort_keys=True)
        is_new = before == 0 or known[-1] != template
        self._revisions[name] = [*(known if before else ()), template]
        revision = before + is_new
        metadata.setdefault("annotations", {})[REVISION] = str(revision)
        status, failure = self.fate(deployment), self.replica_failure.get(name)
        old = []
        if before and is_new and (status or failure):
            rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate", {})
            old = self._keep_old(name, wanted - rolling.get("maxUnavailable", 0))
        else:
            self._clear(name)
        made = 0 if failure else min(wanted, 1) if old else wanted
        ready = 0 if status else made
        uid, hash = str(uuid.uuid4()), "abc" if revision == 1 else f"r{revision}"
        conditions = [{"type": "ReplicaFailure", "status": "True", "message": failure}] if failure else []
        deployment["status"] = {
            "observedGeneration": metadata["generation"],
            "replicas": len(old) + (made if old else wanted),
            "updatedReplicas": made if old else wanted,
            "availableReplicas": len(old) + ready,
            "conditions": conditions,
        }
        self.add(
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": f"{name}-{hash}",
                    "namespace": space,
                    "uid": uid,
                    "annotations": {REVISION: str(revision)},
                    "ownerReferences": [{"uid": metadata["uid"], "kind": "Deployment", "name": name}],
                },
                "status": {"conditions": conditions},
            }
        )
        owner = {"kind": "ReplicaSet", "name": f"{name}-{hash}", "uid": uid}
        self._run(deployment, owner, status, [None] * made)
        if self.slow and not status:
            self.comes_up(name, False)
            self._starting.append(name)

    def _keep_old(self, name: str, most: int) -> list[Object]:
        """The pods of a Deployment that are ready, ``most`` of them; the others go."""
        owned = [(key, one) for key, one in self.objects.items() if key[0] == "pods" and key[2].startswith(f"{name}-")]
        ready = [(key, one) for key, one in owned if _is_ready(one)][: max(most, 0)]
        for key, _ in owned:
            if key not in [kept for kept, _ in ready]:
                del self.objects[key]
        return [one for _, one in ready]

    def comes_up(self, name: str, up: bool = True) -> None:
        """The newest pods of a Deployment get ready (or are it no more), whatever was wrong with them."""
        deployment = self.find("deployments", name)
        revision = deployment["metadata"]["annotations"][REVISION]
        newest = "abc" if revision == "1" else f"r{revision}"
        for (kind, _, pod), one in list(self.objects.items()):
            if kind == "pods" and pod.startswith(f"{name}-"):
                if pod.startswith(f"{name}-{newest}-"):
                    ready = {"type": "Ready", "status": "True" if up else "False"}
                    one["status"] = {"phase": "Running", "conditions": [ready], "containerStatuses": []}
                elif up:
                    self.remove("pods", pod)
        wanted = deployment["spec"].get("replicas", 1)
        counts = {"replicas": wanted, "updatedReplicas": wanted, "availableReplicas": wanted if up else 0}
        deployment["status"].update(counts)

    def seen(self) -> None:
        """Somebody has looked at the pods: what was starting has started."""
        self.looks += 1
        while self._starting:
            self.comes_up(self._starting.pop())
        self.looked(self.looks)

    def _control_daemon_set(self, daemon_set: Object) -> None:
        """The DaemonSet's controller and the kubelets, all at once."""
        metadata, spec = daemon_set["metadata"], daemon_set["spec"]
        name, space = metadata["name"], metadata["namespace"]
        self._clear(name)
        selector = spec["template"]["spec"].get("nodeSelector", {})
        nodes = [key[2] for key, one in self.objects.items() if key[0] == "nodes" and _matches(one, selector)]
        status = self.fate(daemon_set)
        failure = self.replica_failure.get(name)
        scheduled = 0 if failure else len(nodes)
        daemon_set["status"] = {
            "observedGeneration": metadata["generation"],
            "desiredNumberScheduled": len(nodes),
            "currentNumberScheduled": scheduled,
            "updatedNumberScheduled": scheduled,
            "numberAvailable": 0 if status else scheduled,
        }
        metadata.setdefault("annotations", {})[GENERATION] = str(metadata["generation"])
        owner = {"kind": "DaemonSet", "name": name, "uid": metadata["uid"]}
        self._run(daemon_set, owner, status, nodes[:scheduled])
        if failure:
            self._event(space, "DaemonSet", name, "FailedCreate", failure)

    def _clear(self, name: str) -> None:
        for key in [key for key in self.objects if key[0] in ("pods", "replicasets") and key[2].startswith(f"{name}-")]:
            del self.objects[key]

    def _run(self, workload: Object, owner: Object, status: Object | None, nodes: Sequence[str | None]) -> None:
        """A pod of ``workload`` on each of ``nodes`` (None: on any), which comes to ``status`` (None: it runs)."""
        name, space = workload["metadata"]["name"], workload["metadata"]["namespace"]
        template = workload["spec"]["template"]
        applied = workload["metadata"].get("annotations", {}).get(GENERATION)
        generation = {"pod-template-generation": applied} if applied else {}
        for number, where in enumerate(nodes):
            self.add(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": (
                            pod := f"{owner['name'] if owner['kind'] == 'ReplicaSet' else f'{name}-abc'}-{number}"
                        ),
                        "namespace": space,
                        "labels": {**template["metadata"]["labels"], **generation},
                        "ownerReferences": [owner],
                    },
                    "spec": {
                        "nodeName": where or self._scheduled(template["spec"]),
                        "containers": template["spec"]["containers"],
                        "volumes": template["spec"].get("volumes", []),
                    },
                    "status": {
                        "phase": "Pending" if status else "Running",
                        "qosClass": "Guaranteed",
                        "conditions": [
                            *(status or {}).get("conditions", []),
                            {"type": "Ready", "status": "False" if status else "True"},
                        ],
                        "containerStatuses": (status or {}).get("containerStatuses", _running(template)),
                    },
                }
            )
            if status and "event" in status:
                self._event(space, "Pod", pod, "Failed", status["event"])

    def _scheduled(self, spec: Object) -> str:
        """The first node that has the CPUs for it, by name."""
        selector = spec.get("nodeSelector", {})
        nodes = {key[2]: one for key, one in self.objects.items() if key[0] == "nodes" and _matches(one, selector)}
        pods = [one["spec"] for key, one in self.objects.items() if key[0] == "pods"]
        for name, one in sorted(nodes.items(), key=lambda pair: (bool(pair[1]["spec"]), pair[0])):
            taken = sum(map(_cpus, (pod for pod in pods if pod.get("nodeName") == name)))
            if taken + _cpus(spec) <= float(one["status"]["allocatable"]["cpu"]):
                return name
        return min(nodes, default="node-1")

    def _event(self, namespace: str, kind: str, name: str, reason: str, message: str) -> None:
        self.add(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{name}.{reason}", "namespace": namespace},
                "involvedObject": {"kind": kind, "name": name},
                "type": "Warning",
                "reason": reason,
                "message": message,
                "lastTimestamp": "2026-01-01T00:00:00Z",
            }
        )


def _cpus(spec: Object) -> float:
    requests = (one.get("resources", {}).get("requests", {}).get("cpu", "0") for one in spec["containers"])
    return sum(float(text[:-1]) / 1000 if text.endswith("m") else float(text) for text in requests)


def _is_ready(pod: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"]["conditions"])


def _running(template: Object) -> list[Object]:
    """The statuses of containers that run, each of them the image that its name is of today."""
    return [
        {
            "name": one["name"],
            "image": one["image"],
            "imageID": f"{one['image'].rpartition(':')[0]}@sha256:{hashlib.sha256(one['image'].encode()).hexdigest()}",
            "containerID": f"containerd://{uuid.uuid4().hex}",
            "restartCount": 0,
            "ready": True,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }
        for one in template["spec"]["containers"]
    ]


def _matches(node: Object, selector: dict[str, str]) -> bool:
    return selector.items() <= node["metadata"].get("labels", {}).items()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no trouble; all else is told."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for its head to be acknowledged
    api: ApiServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self._wait()
        if self.api.unauthorized:
            return self._status(401, "Unauthorized", "Unauthorized")
        if url.path == "/openapi/v2":  # an empty document
            return self._send(200, b"", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
        discovered = self._discovery(url.path)
        if discovered is not None:
            return self._json(discovered)
        return self._read(url.path, query)

    def _discovery(self, path: str) -> Object | None:  # noqa: PLR0911
        """What a path of the discovery API says; None for any other path."""
        if path == "/version":
            major, minor = re.findall(r"\d+", self.api.version)[:2]
            return {"major": major, "minor": minor, "gitVersion": self.api.version}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = [version for version in self.api.kinds() if "/" in version]
            listed = [
                {
                    "name": version.split("/")[0],
                    "versions": [{"groupVersion": version, "version": version.split("/")[1]}],
                    "preferredVersion": {"groupVersion": version, "version": version.split("/")[1]},
                }
                for version in groups
            ]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        if path == "/openapi/v3":
            urls = {self._base(version): f"/openapi/v3{self._base(version)}" for version in self.api.kinds()}
            return {"paths": {base.lstrip("/"): {"serverRelativeURL": url} for base, url in urls.items()}}
        if path.startswith("/openapi/v3/"):
            return self._openapi(path.removeprefix("/openapi/v3"))
        found = re.fullmatch(r"/apis?/(v1|[\w.-]+/v\d\w*)", path)
        if found and found[1] in self.api.kinds():
            resources = [
                {
                    "name": plural,
                    "singularName": kind.lower(),
                    "kind": kind,
                    "namespaced": namespaced,
                    "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
                }
                for kind, plural, namespaced in self.api.kinds()[found[1]]
            ]
            return {"kind": "APIResourceList", "groupVersion": found[1], "resources": resources}
        return None

    @staticmethod
    def _base(version: str) -> str:
        return f"/apis/{version}" if "/" in version else f"/api/{version}"

    def _openapi(self, base: str) -> Object:
        """As much of a version's document as kubectl looks at: that the server validates fields itself."""
        parameters = [
            {"name": name, "in": "query", "schema": {"type": "string"}} for name in ("dryRun", "fieldValidation")
        ]
        group, _, version = base.removeprefix("/api").removeprefix("s").lstrip("/").rpartition("/")
        kinds = self.api.kinds()[f"{group}/{version}" if group else version]
        paths = {}
        for kind, plural, _ in kinds:
            operation = {
                "parameters": parameters,
                "responses": {},
                "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
            }
            if kind not in NEVER_PATCHED:
                paths[f"{base}/{plural}/{{name}}"] = {"patch": operation}
            paths[f"{base}/{plural}"] = {"post": operation}
        return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": self.api.version}, "paths": paths}

    def _read(self, path: str, query: dict[str, str]) -> None:
        version, plural, namespace, name, rest = self._split(path)
        if not self._may("get" if name else "list", path):
            return None
        if rest == "log":
            pod = re.sub(r"-\w+-\d+$", "", name)
            if query.get("previous") == "true":
                logged = self.api.objects.get((plural, namespace, name), {})
                if not any(each.get("restartCount") for each in logged.get("status", {}).get("containerStatuses", [])):
                    return self._status(400, "BadRequest", "previous terminated container not found")
            return self._send(200, self.api.logs.get(pod, "").encode(), "text/plain")
        if name:
            one = self.api.objects.get((plural, namespace, name))
            return self._json(one) if one else self._missing(plural, name)
        labels = dict(part.split("=", 1) for part in query.get("labelSelector", "").split(",") if part)
        selector = query.get("fieldSelector", "")
        wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
        items = [
            one
            for (kind, space, _), one in list(self.api.objects.items())
            if kind == plural
            and namespace in ("", space)
            and labels.items() <= one["metadata"].get("labels", {}).items()
            and wanted.get("involvedObject.name") in (None, one.get("involvedObject", {}).get("name"))
            and wanted.get("type") in (None, one.get("type"))
            and wanted.get("spec.nodeName") in (None, one.get("spec", {}).get("nodeName"))
        ]
        if plural == "pods":
            items = copy.deepcopy(items)  # as they are at this look, not after it
            self.api.seen()
        listed = next(kind for kind, known, _ in self.api.kinds()[version] if known == plural)
        return self._json({"kind": f"{listed}List", "apiVersion": version, "metadata": {}, "items": items})

    def do_PATCH(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        _, plural, namespace, name, rest = self._split(url.path)
        self._wait()
        is_new = (plural, namespace, name) not in self.api.objects
        # An apply that makes something is a creation as well.
        if not self._may("patch", url.path) or (is_new and not self._may("create", url.path)):
            return None
        space = self.api.objects.get(("namespaces", "", namespace))
        if namespace and space is None:
            return self._missing("namespaces", namespace)
        if space and is_new and space.get("status", {}).get("phase") == "Terminating":
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            return self._status(403, "Forbidden", f'{plural} "{name}" is forbidden: {why}')
        if self.headers["Content-Type"] == "application/apply-patch+yaml":
            one = yaml.safe_load(body)
        else:  # a merge patch, such as `kubectl scale` sends
            one = copy.deepcopy(self.api.objects[plural, namespace, name])
            _merge(one, json.loads(body))
        if rest == "scale":
            return self._json(self._scaled(namespace, name))
        warning = self.api.pod_security if plural == "deployments" else ""
        return self._json(self.api.put(plural, one, dry_run="dryRun" in query), warning=warning)

    def _scaled(self, namespace: str, name: str) -> Object:
        return self.api.objects["deployments", namespace, name]

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._wait()
        path = urlsplit(self.path).path
        if not self._may("create", path):
            return None
        if not text:  # a port-forward
            return self._status(501, "NotImplemented", "this server forwards no ports")
        body = json.loads(text)
        if body["kind"] == "SelfSubjectAccessReview":
            asked = body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
            allowed = (asked["verb"], resource) not in self.api.refused
            if self.api.access:
                request = Request(asked["verb"], asked.get("group", ""), *(asked.get(key, "") for key in REVIEWED))
                allowed = allowed and self.api.access.allows(request)
            body["status"] = {"allowed": allowed}
            return self._json(body, 201)
        _, plural, _, _, _ = self._split(path)
        return self._json(self.api.put(plural, body, dry_run=False), 201)

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._wait()
        path = urlsplit(self.path).path
        if not self._may("delete", path):
            return None
        _, plural, namespace, name, _ = self._split(path)
        one = self.api.objects.get((plural, namespace, name))
        if one is None:
            return self._missing(plural, name)
        self.api.writes.append(f"delete {plural}/{name}")
        if plural == "namespaces" and self.api.holds:
            held = {"type": "NamespaceContentRemaining", "status": "True", "message": self.api.holds}
            one["status"] = {"phase": "Terminating", "conditions": [held]}
            return self._json(one)
        del self.api.objects[plural, namespace, name]
        if plural in ("deployments", "daemonsets"):
            self.api._clear(name)
        if plural == "namespaces":
            for key in [key for key in self.api.objects if key[1] == name]:
                del self.api.objects[key]
        return self._json({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _split(self, path: str) -> tuple[str, str, str, str, str]:
        """(version, plural, namespace, name, subresource) of a path."""
        found = re.fullmatch(
            r"/apis?/(?P<version>v1|[\w.-]+/v\d\w*)(?:/namespaces/(?P<space>[\w.-]+)(?=/))?/(?P<plural>\w+)"
            r"(?:/(?P<name>[\w.-]+))?(?:/(?P<rest>\w+))?",
            path,
        )
        assert found, path
        return found["version"], found["plural"], found["space"] or "", found["name"] or "", found["rest"] or ""

    def _may(self, verb: str, path: str) -> bool:
        """Whether the user may do that; where not, it is answered."""
        version, plural, namespace, name, rest = self._split(path)
        where = name if plural == "namespaces" and verb != "create" else namespace
        request = Request(verb, version.rpartition("/")[0], plural, rest, where, name)
        may = self.api.access is None or self.api.access.ask(request)
        may = may and not (self.api.only_namespaces and not namespace and plural != "namespaces")
        if (verb, plural) in self.api.refused or not may:
            details = {"name": name, "group": request.group, "kind": plural}
            user = self.api.access.user if self.api.access else "dev"
            self._status(403, "Forbidden", request.message(user), details)
            return False
        return True

    def _wait(self) -> None:
        """Until the server is silent no more."""
        while self.api.silent.is_set():
            time.sleep(0.05)

    def _missing(self, plural: str, name: str) -> None:
        self._status(404, "NotFound", f'{plural} "{name}" not found', {"name": name, "kind": plural})

    def _status(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason}
        self._json({**body, "code": code, "details": details or {}}, code)

    def _json(self, body: Object, code: int = 200, warning: str = "") -> None:
        self._send(code, json.dumps(body).encode(), "application/json", warning)

    def _send(self, code: int, body: bytes, kind: str, warning: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if warning:
            escaped = warning.replace('"', '\\"')
            self.send_header("Warning", f'299 - "{escaped}"')
        self.end_headers()
        self.wfile.write(body)


def _merge(one: Object, patch: Object) -> None:
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(one.get(key), dict):
            _merge(one[key], value)
        else:
            one[key] = value


@contextmanager
def serving(api: ApiServer, kubeconfig: Path, context: str = "test") -> Iterator[str]:
    """Serve it on a free port for the length of a ``with`` block, and write a kubeconfig for it; yields its URL."""
    handler = type("Handler", (_Handler,), {"api": api})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    write_kubeconfig(kubeconfig, url, context)
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_kubeconfig(path: Path, url: str, context: str = "test") -> None:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": "none"}}],
    }
    path.write_text(yaml.safe_dump(content))

"""What the user may do on the cluster: everything that is needed, or not; what is optional is left out where not."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from models.problem import Problem
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Forbidden, Object

OPTIONAL = "tandem.dev/optional"  # annotation of an object that a deployment does without; its value: what that is


class Action(NamedTuple):
    """Something that may be allowed or not; ``namespace`` is empty where it concerns the cluster."""

    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str

    @property
    def what(self) -> str:
        """All but the verb, in words."""
        name = "/".join(filter(None, (self.resource, self.subresource))) + (f".{self.group}" if self.group else "")
        return f"{name} in namespace {self.namespace}" if self.namespace else name


# Of a deployment that is there, whatever it consists of: to watch it, to prove it, to say why not.
WATCHING = (
    Action("create", "", "pods", "portforward", NAMESPACE),
    Action("get", "", "pods", "log", NAMESPACE),
    Action("list", "", "pods", "", NAMESPACE),
    Action("list", "", "events", "", NAMESPACE),
    Action("list", "apps", "deployments", "", NAMESPACE),
    Action("list", "apps", "replicasets", "", NAMESPACE),
)


@dataclass(frozen=True)
class Permitted:
    """What may be applied of a deployment's objects.

    objects   those that may; left_out: optional ones that may not, and why, in words
    missing   what is needed and refused
    """

    objects: tuple[Object, ...]
    left_out: tuple[tuple[Object, str], ...]
    missing: tuple[Action, ...]

    @property
    def all(self) -> tuple[Object, ...]:
        """Those that may be applied and those that are left out."""
        return (*self.objects, *(one for one, _ in self.left_out))

    @property
    def notes(self) -> list[str]:
        """A line for each thing that is left out."""
        reasons = {optional(one): why for one, why in self.left_out}
        return [f"{what} left out: {why}" for what, why in reasons.items()]

    def require(self, context: str) -> None:
        """Raise `Problem` naming everything that is missing."""
        if not self.missing:
            return
        refused: dict[str, list[str]] = {}
        for action in sorted(self.missing, key=lambda one: (one.what, one.verb)):
            refused.setdefault(action.what, []).append(action.verb)
        raise Problem(
            f"{context}: your user lacks permissions for {len(refused)} kinds of objects (above); k8s/access/needed "
            f"has the role that a cluster's administrator can apply: docs/kubernetes.md, Permissions",
            [f"may not {', '.join(verbs)} {what}" for what, verbs in refused.items()],
        )


def optional(one: Object) -> str:
    """What is missed without an object; empty for what cannot be done without."""
    return str(one["metadata"].get("annotations", {}).get(OPTIONAL, ""))


def permitted(cluster: Cluster, objects: Sequence[Object], present: Collection[str]) -> Permitted:
    """What the user may apply of ``objects``; ``present``: the namespaces that are there. Raises `Problem`."""
    wanted = {index: set(_applying(one, present)) for index, one in enumerate(objects)}
    needed = {action for index, actions in wanted.items() if not optional(objects[index]) for action in actions} | set(
        WATCHING
    )
    refused = review(cluster, needed.union(*wanted.values()))
    reasons: dict[str, str] = {}
    for index, actions in wanted.items():
        if (what := optional(objects[index])) and (hit := sorted(actions & refused)):
            reasons.setdefault(what, f"your user may not {hit[0].verb} {hit[0].what}")
    return Permitted(
        tuple(one for one in objects if optional(one) not in reasons),
        tuple((one, reasons[optional(one)]) for one in objects if optional(one) in reasons),
        tuple(needed & refused),
    )


def _applying(one: Object, present: Collection[str]) -> Iterable[Action]:
    """What an apply of an object takes: a server-side one is a patch, and of what is new a creation as well."""
    if one["kind"] == "Namespace":
        # One that is there is left as it is where its labels may not be changed.
        return () if one["metadata"]["name"] in present else (Action("create", "", "namespaces", "", ""),)
    namespace = one["metadata"].get("namespace", "")
    verbs = (
        ("create", "patch") if optional(one) else ("create", "patch", "delete")
    )  # the latter of what is no longer part
    return (Action(verb, group(one), resource(one["kind"]), "", namespace) for verb in verbs)


def review(cluster: Cluster, actions: Iterable[Action]) -> set[Action]:
    """Those of ``actions`` that the user may not do. Raises `Problem`."""
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: text for key, text in action._asdict().items() if text}},
        }
        for action in sorted(actions)
    ]
    # kubectl would validate the reviews, and for a kind that cannot be patched asks for the list of all CRDs to do so.
    arguments = ("create", "--validate=false", "--filename=-", "--output=json")
    text = cluster.run(*arguments, objects=reviews, doing="asking for one's permissions")
    refused = set()
    for answer in _documents(text):
        if not answer["status"].get("allowed", False):
            asked = answer["spec"]["resourceAttributes"]
            refused.add(Action(*(asked.get(key, "") for key in Action._fields)))
    return refused


def namespaces(cluster: Cluster, names: Iterable[str]) -> dict[str, Object]:
    """Those of the named namespaces that are there and may be seen. Raises `Problem`."""
    found = {}
    for name in names:
        try:
            one = cluster.find("namespace", name, None)
        except Forbidden:
            continue
        if one:
            found[name] = one
    return found


def _documents(text: str) -> list[Object]:
    """kubectl prints a List, or several JSON documents behind each other."""
    found: list[Object] = []
    decoder, position = json.JSONDecoder(), 0
    while position < len(text.rstrip()):
        one, end = decoder.raw_decode(text, position)
        found += one["items"] if one.get("kind") == "List" else [one]
        position = end + len(text[end:]) - len(text[end:].lstrip())
    return found


def group(one: Object) -> str:
    """An object's API group; empty for the core's."""
    name, slash, _ = str(one["apiVersion"]).partition("/")
    return name if slash else ""


def resource(kind: str) -> str:
    """The plural that the API uses, of the kinds that we have."""
    word = kind.lower()
    return f"{word[:-1]}ies" if word.endswith("y") else word if word.endswith("s") else f"{word}s"

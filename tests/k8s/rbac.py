"""What a user may do: Roles and ClusterRoles, evaluated as Kubernetes' RBAC does, and what its built-in roles allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Object = dict[str, Any]
READ = ("get", "list", "watch")
WRITE = ("create", "delete", "deletecollection", "patch", "update")


class Request(NamedTuple):
    """One request as the authorizer sees it; a namespace itself counts as in that namespace."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def path(self) -> str:
        return "/".join(filter(None, (self.resource, self.subresource)))

    def message(self, user: str) -> str:
        """What the server says where it is refused."""
        what = f"{self.resource}.{self.group}" if self.group else self.resource
        name = f' "{self.name}"' if self.name else ""
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        return (
            f'{what}{name} is forbidden: User "{user}" cannot {self.verb} resource "{self.path}" in API group '
            f'"{self.group}" {where}'
        )


class Grant(NamedTuple):
    """One verb on one resource that a bound role gives; an empty namespace: in all of them."""

    namespace: str
    group: str
    resource: str
    verb: str
    names: tuple[str, ...] = ()

    def covers(self, request: Request) -> bool:
        return (
            self.namespace in ("", request.namespace)
            and self.group in ("*", request.group)
            and self.resource in ("*", request.path)
            and self.verb in ("*", request.verb)
            and (not self.names or request.name in self.names)
        )


@dataclass
class Access:
    """What one user was given, and what was asked for and allowed, or refused, so far."""

    grants: list[Grant]
    user: str = "dev"
    allowed: set[Request] = field(default_factory=set)
    refused: set[Request] = field(default_factory=set)

    def allows(self, request: Request) -> bool:
        return any(grant.covers(request) for grant in [*BASIC, *self.grants])

    def ask(self, request: Request) -> bool:
        """The same of a request that is made, not only asked about; it is remembered."""
        (self.allowed if (allows := self.allows(request)) else self.refused).add(request)
        return allows

    def unused(self) -> set[Grant]:
        """What was given and never needed."""
        return {grant for grant in self.grants if not any(grant.covers(one) for one in self.allowed)}


def granted(rules: Iterable[Object], namespace: str) -> Iterator[Grant]:
    """What the rules of a role give in a namespace, or (empty) in all and on the cluster."""
    for rule in rules:
        names = tuple(rule.get("resourceNames", ()))
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield Grant(namespace, group, resource, verb, names)


def bound(objects: list[Object], group: str) -> list[Grant]:
    """What the bindings among ``objects`` give to a group of users."""
    roles = {(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one for one in objects}
    found: list[Grant] = []
    for one in objects:
        if one["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        if not any(subject["kind"] == "Group" and subject["name"] == group for subject in one["subjects"]):
            continue
        namespace, reference = one["metadata"].get("namespace", ""), one["roleRef"]
        where = namespace if reference["kind"] == "Role" else ""
        found += granted(roles[reference["kind"], where, reference["name"]]["rules"], namespace)
    return found


def rules(group: str, resources: str, verbs: tuple[str, ...]) -> Object:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": list(verbs)}


# Every user that is logged in: the ClusterRole system:basic-user (and system:discovery, which names no resources).
BASIC = list(
    granted([rules("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", ("create",))], "")
)
# As Kubernetes 1.36 has its built-in roles, of what the deployment touches.
_CORE = "configmaps persistentvolumeclaims serviceaccounts services"
_APPS = "daemonsets deployments deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale"
VIEW = [
    rules("", f"{_CORE} pods endpoints pods/log pods/status events namespaces", READ),
    rules("", "limitranges resourcequotas resourcequotas/status bindings", READ),
    rules("apps", f"{_APPS} controllerrevisions", READ),
    rules("autoscaling", "horizontalpodautoscalers", READ),
    rules("policy", "poddisruptionbudgets", READ),
    rules("networking.k8s.io", "ingresses networkpolicies", READ),
]
EDIT = [
    *VIEW,
    rules("", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy", READ),
    rules("", f"{_CORE} pods pods/attach pods/exec pods/portforward pods/proxy secrets events", WRITE),
    rules("apps", _APPS, WRITE),
    rules("autoscaling", "horizontalpodautoscalers", WRITE),
    rules("policy", "poddisruptionbudgets", WRITE),
    rules("networking.k8s.io", "ingresses networkpolicies", WRITE),
]
ADMIN = [*EDIT, rules("rbac.authorization.k8s.io", "roles rolebindings", (*READ, *WRITE))]
MAKE_NAMESPACES = [rules("", "namespaces", ("create",))]

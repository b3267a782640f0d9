"""Every object that any build gives is valid, strictly, for the three newest minor versions of Kubernetes."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema
import pytest
import yaml
from kubernetes_validate.utils import all_versions, schema_contents
from referencing import Registry, Resource

from tests.k8s.rendered import COMBINATIONS, K8S, ROOT, everything, find, the

NEWEST = tuple(dict.fromkeys(".".join(version.split(".")[:2]) for version in all_versions()))[-3:]
CRDS = yaml.safe_load((ROOT / "tests/k8s/crds.yaml").read_text())


@functools.cache
def validator(version: str, api_version: str, kind: str) -> jsonschema.Draft202012Validator:
    if f"{api_version}/{kind}" in CRDS:
        return jsonschema.Draft202012Validator(CRDS[f"{api_version}/{kind}"])
    group, _, of_group = api_version.rpartition("/")
    stem = f"{group.split('.')[0]}-{of_group}" if group else of_group
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    schema = schema_contents(f"{folder}/{kind.lower()}-{stem}.json", version)
    return jsonschema.Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions(folder))


@functools.cache
def _definitions(folder: str) -> Registry:
    return Resource.from_contents(schema_contents(f"{folder}/_definitions.json", folder)) @ Registry()


@functools.cache
def problems(version: str, text: str) -> tuple[str, ...]:
    one = json.loads(text)
    errors = validator(version, one["apiVersion"], one["kind"]).iter_errors(one)
    return tuple(f"{one['kind']}/{one['metadata']['name']} {error.json_path}: {error.message}" for error in errors)


@pytest.mark.parametrize("version", NEWEST)
def test_every_object_of_every_combination_is_valid(version):
    found = {
        (str(combination), problem)
        for combination, objects in everything().items()
        for one in objects
        for problem in problems(version, json.dumps(one, sort_keys=True))
    }
    assert not found


def test_three_successive_minor_versions_are_checked():
    first = int(NEWEST[0].split(".")[1])
    assert tuple(f"1.{first + step}" for step in range(3)) == NEWEST


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "torchserve", ("spec", "replica"), 2),
        ("Service", "torchserve", ("spec", "ports", 0, "port"), "7070"),
        ("NetworkPolicy", "torchserve", ("spec", "ingres"), []),
        ("HTTPRoute", "torchserve", ("spec", "hostname"), "x"),
        ("ServiceMonitor", "torchserve", ("spec", "endpoints", 0, "intervall"), "5s"),
        ("HorizontalPodAutoscaler", "torchserve", ("spec", "minReplicas"), "two"),
    ],
)
def test_a_mistake_is_found(kind: str, name: str, path: tuple[Any, ...], value: object):
    objects = next(
        objects
        for combination, objects in everything().items()
        if {"ingress", "prometheus-operator", "autoscaling"} <= set(combination.components)
    )
    broken = json.loads(json.dumps(the(objects, kind, name)))
    place = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert problems(NEWEST[-1], json.dumps(broken, sort_keys=True))


@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
def test_no_object_is_there_twice(combination):
    names = [
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in everything()[combination]
    ]
    assert len(names) == len(set(names))


def test_every_component_is_in_some_combination():
    folders = {
        path.parent.relative_to(K8S / "components").as_posix() for path in K8S.glob("components/**/kustomization.yaml")
    }
    used = {component for combination in COMBINATIONS for component in combination.components}
    in_overlays = {"gpu", "dcgm-exporter"}
    assert folders == used | in_overlays
    assert all(find(objects, "Deployment", "torchserve") for objects in everything().values())

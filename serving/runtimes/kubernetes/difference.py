"""What an apply would change: asked of the server by a dry run, or seen by reading where only that is allowed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from serving.runtimes.kubernetes.kubectl import MANAGER, REFUSED, Cluster, Object, explain
from serving.runtimes.kubernetes.permissions import resource


def by_dry_run(cluster: Cluster, objects: Sequence[Object]) -> list[str]:
    """The lines of `kubectl diff`; none where nothing differs. Raises `Problem`, `Forbidden` for a reader."""
    arguments = ["diff", "--server-side", "--force-conflicts", f"--field-manager={MANAGER}", "--filename=-"]
    done = cluster.try_run(*arguments, objects=objects)
    if done.returncode > 1:  # 1 is diff's word for "they differ"
        raise explain("comparing with the cluster", done.stderr)
    return list(done.stdout.splitlines()) if done.returncode else []


def by_reading(cluster: Cluster, objects: Sequence[Object]) -> list[str]:
    """The same, as far as it is seen without a dry run: what we set and the cluster has otherwise, not what was taken
    away. What may not be read is named with a question mark. Raises `Problem`."""
    if not objects:
        return []
    done = cluster.try_run("get", "--filename=-", "--output=json", "--ignore-not-found", objects=objects)
    hidden = {found["resource"] for found in re.finditer(REFUSED, done.stderr)}
    if done.returncode and not hidden:
        raise explain("comparing with the cluster", done.stderr)
    answer = json.loads(done.stdout) if done.stdout.strip() else {"items": []}
    there = {_key(one): one for one in answer.get("items", [answer])}
    return [line for one in objects for line in _lines(one, there.get(_key(one)), resource(one["kind"]) in hidden)]


def _lines(wanted: Object, live: Object | None, hidden: bool) -> Iterator[str]:
    name = f"{wanted['kind']} {wanted['metadata']['name']}"
    if live is None:
        yield f"? {name}: may not be read" if hidden else f"+ {name}"
        return
    before, after = _text(_same_fields(live, wanted)), _text(wanted)
    yield from difflib.unified_diff(before, after, f"live {name}", f"merged {name}", lineterm="")


def _key(one: Object) -> tuple[str, str, str]:
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]


def _same_fields(live: Any, wanted: Any) -> Any:
    """As much of ``live`` as ``wanted`` has, too: the rest is the server's defaults and what controllers wrote."""
    if isinstance(live, dict) and isinstance(wanted, dict):
        shared = {key: _same_fields(live[key], value) for key, value in wanted.items() if key in live}
        empty = {key: value for key, value in wanted.items() if key not in live and not value}  # the server drops them
        return {**shared, **empty}
    if isinstance(live, list) and isinstance(wanted, list):
        pairs = zip(live, wanted, strict=False)
        return [*(_same_fields(mine, ours) for mine, ours in pairs), *live[len(wanted) :]]
    return live


def _text(one: Any) -> list[str]:
    return str(yaml.safe_dump(one, width=120)).splitlines()

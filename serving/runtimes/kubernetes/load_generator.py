"""The load generator in the cluster: where it is asked, and the jobs that it has (see `loadtest.generator.agent`)."""

from __future__ import annotations

import json
import time
import urllib.request

from models.problem import Problem
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster
from serving.runtimes.kubernetes.port_forward import PortForward

MASTER, WORKERS = "locust-master", "locust-worker"
PORT = 9647
ASKED_S = 10.0
# It is reached through a port-forward on this machine, whatever proxy HTTP_PROXY says.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def forwarded(cluster: Cluster) -> PortForward:
    """A port-forward to it, not yet entered."""
    return PortForward(cluster, f"deployment/{MASTER}", (PORT,))


def jobs(cluster: Cluster) -> dict[str, str]:
    """Its jobs, RUN.BLOCK, and their states ("running", "ended", …); none where it is not up. Raises `Problem` where
    it is up and cannot be asked."""
    deployment = cluster.find("deployment", MASTER)
    if deployment is None or not deployment.get("status", {}).get("availableReplicas"):
        return {}
    with forwarded(cluster) as forward:
        deadline = time.monotonic() + ASKED_S
        while True:
            try:
                with _DIRECT.open(f"http://{forward.address(PORT)}/jobs", timeout=ASKED_S) as answer:
                    found: dict[str, str] = json.load(answer)
                    return found
            except (OSError, ValueError) as error:
                if time.monotonic() > deadline:
                    raise Problem(f"it does not say what it has to do: {error}") from None
                time.sleep(0.2)


def require_idle(cluster: Cluster) -> None:
    """Raise `Problem` where it has a job, or cannot be asked: who replaces it ends what runs, and loses what nobody has
    brought home."""
    even_so = "--even-so (make: ARGS=--even-so) goes on all the same"
    try:
        found = jobs(cluster)
    except Problem as problem:
        raise Problem(f"whether the load generator measures is not known ({problem}): {even_so}") from None
    if not found:
        return
    said = {"running": "runs"}
    lines = [f"{job} {said.get(state, 'is done, and not collected')}" for job, state in found.items()]
    runs = sorted({job.partition(".")[0] for job in found})
    raise Problem(
        f"the load generator has {len(found)} job{'s' if len(found) > 1 else ''} (above), which a roll-out would end, "
        f"with all that is not home yet: wait for the end of that make compare, or make collect RUN=results/{runs[0]}; "
        f"{even_so} (kubectl --namespace={NAMESPACE} logs deployment/{MASTER} says more)",
        lines,
    )

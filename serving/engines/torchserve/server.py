"""Starts TorchServe itself: Java directly, so that its whole process group is ours to stop."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from models.problem import Problem
from serving.engines.torchserve import config, java
from serving.ports import LOOPBACK
from serving.profile import ServingProfile
from serving.runtimes.process.server_process import ServerProcess

# What TorchServe logs when a worker dies while it loads the model; it would try again for minutes.
FAILED = re.compile(r"Backend worker process died|WorkerInitializationException|Load model failed")


class TorchServe:
    """A running TorchServe: its process and its short temporary folder (unpacked model, worker sockets)."""

    def __init__(
        self,
        archives: Mapping[str, Path],
        profile: ServingProfile,
        folder: Path,
        ports: config.Ports,
        cores: Sequence[int],
        available_cores: int,
    ) -> None:
        """Render the configuration into ``folder`` and start the server with the models of ``archives``, by name;
        raises `Problem`."""
        runtime = java.find()
        versions = {model: config.archive_version(archive) for model, archive in archives.items()}
        (model, own_version), *others = versions.items()
        self._describe = [f"http://{LOOPBACK}:{ports.management}/models/{name}" for name in archives]
        # Not below `folder`: a worker's Unix socket lies here, and its path may have no more than 107 characters.
        self._scratch = Path(tempfile.mkdtemp(prefix="tandem-"))
        try:
            store = _store(archives, self._scratch)
            self.rendering = config.render(
                profile,
                model=model,
                model_version=own_version,
                model_store=str(store),
                metrics_config=str((folder / "metrics.yaml").resolve()),
                ports=ports,
                cores=available_cores,
                beside=dict(others),
            )
            self.rendering.write(folder)
            command = command_line(runtime, folder.resolve(), store, self._scratch)
            environment = {**thread_settings(profile), **scratch_settings(self._scratch)}
            self.version = f"{version('torchserve')} (torch {version('torch')}, Java {runtime.version})"
            self.process = ServerProcess(
                "TorchServe",
                command,
                folder / "server.log",
                environment=environment,
                cores=cores,
                folder=folder,
            )
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise

    def model_loaded(self) -> bool:
        """Whether every worker has loaded its model. Raises `Problem` where one failed: TorchServe would just retry."""
        if FAILED.search(self.process.log.read_text(errors="replace")):
            raise Problem(f"TorchServe cannot load the model (log: {self.process.log})", self.process.last_lines())
        return all(map(_ready, self._describe))

    def stop(self) -> None:
        """Stop the server and its workers and delete the temporary folder. Idempotent."""
        self.process.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _store(archives: Mapping[str, Path], scratch: Path) -> Path:
    """The folder that holds all archives: the only one's own, or links in one below ``scratch``."""
    if len(archives) == 1:
        return next(iter(archives.values())).parent.resolve()
    store = scratch / "store"
    store.mkdir()
    for archive in archives.values():
        (store / archive.name).symlink_to(archive.resolve())
    return store


def _ready(description: str) -> bool:
    """Whether all workers of the model described at this address are ready."""
    try:
        with urllib.request.urlopen(description, timeout=5) as answer:
            workers = json.load(answer)[0]["workers"]
    except (OSError, ValueError, KeyError, IndexError):
        return False
    return bool(workers) and all(worker["status"] == "READY" for worker in workers)


def command_line(runtime: java.Java, configuration: Path, model_store: Path, scratch: Path) -> list[str]:
    """The command that starts TorchServe with the files that `config.Rendering.write` wrote into ``configuration``.

    ``scratch``: a writable folder with a short path, for the unpacked model and the workers' sockets. Raises `Problem`
    where TorchServe is not installed.
    """
    home = _home()
    return [
        str(runtime.executable),
        f"-Dmodel_server_home={home}",
        f"-Dlog4j.configurationFile={(configuration / 'log4j2.xml').as_uri()}",
        f"-Djava.io.tmpdir={scratch}",
        *("-cp", str(home / "ts" / "frontend" / "*")),
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable),
        *("-f", str(configuration / "config.properties")),
        *("-s", str(model_store)),
        "-ncs",
    ]


def thread_settings(profile: ServingProfile) -> dict[str, str]:
    """The profile's part that TorchServe's workers take from environment variables."""
    return {"TANDEM_TORCH_THREADS": str(profile.threads), "OMP_NUM_THREADS": str(profile.threads)}


def scratch_settings(scratch: Path) -> dict[str, str]:
    """Where TorchServe may write: environment variables for `scratch`."""
    return {"LOG_LOCATION": str(scratch), "METRICS_LOCATION": str(scratch)}


def _home() -> Path:
    """The folder that holds TorchServe's package; raises `Problem` where it is not installed."""
    spec = importlib.util.find_spec("ts")
    if spec is None or not spec.submodule_search_locations:
        raise Problem("TorchServe is not installed: pip install torchserve")
    return Path(next(iter(spec.submodule_search_locations))).resolve().parent

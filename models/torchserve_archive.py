"""Export to a TorchServe model archive (.mar)."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from models import child_environment
from models.problem import Problem, full_disk

# The handler of the serving room, relative to the repository's root. It is packed as a file and never imported.
HANDLER = Path("serving") / "engines" / "torchserve" / "handler.py"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # that the archiver takes


def handler_path() -> Path:
    """The handler's file in this checkout; raises `Problem` where it is missing."""
    path = Path(__file__).resolve().parent.parent / HANDLER
    if not path.is_file():
        raise Problem(f"{path}: missing; restore the file from the repository")
    return path


def require_name(model: str) -> None:
    """Raise `Problem` for the name of a model that no archive can have."""
    if not NAME.fullmatch(model):
        raise Problem(
            f"model {model!r}: a name that TorchServe takes has letters (A-Z, a-z), digits, _, - and .; rename it"
        )


def export(
    torchscript: Path,
    archive: Path,
    *,
    version: int,
    input_shape: Sequence[int],
    class_names: Sequence[str],
    handler: Path,
    encoded: bool = False,
) -> None:
    """Pack the TorchScript file, the handler and what it must know into ``archive`` (``<model>.mar``).

    Beside them the archive holds ``signature.json`` {"input_shape", "classes", "class_names"} and TorchServe's
    ``model-config.yaml`` with the shape under ``handler``; of a bundle that takes ``encoded`` images also what decodes
    them. Raises `Problem` with the archiver's last words, and OSError where a disk is full.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    signature = {"input_shape": list(input_shape), "classes": len(class_names), "class_names": list(class_names)}
    settings = {"input_shape": list(input_shape), "classes": len(class_names), **({"encoded": True} if encoded else {})}
    decoder = [str(Path(__file__).with_name("image_decoding.py"))] if encoded else []
    with tempfile.TemporaryDirectory(prefix="tandem-archive-") as name:
        scratch = Path(name)
        (scratch / "signature.json").write_text(json.dumps(signature, indent=2) + "\n")
        (scratch / "model-config.yaml").write_text(yaml.safe_dump({"handler": settings}))
        (scratch / "tmp").mkdir()
        command = [sys.executable, "-m", "model_archiver.model_packaging"]
        command += ["--model-name", archive.stem, "--version", str(version), "--serialized-file", str(torchscript)]
        command += ["--handler", str(handler), "--export-path", str(archive.parent), "--force"]
        command += [
            "--extra-files",
            ",".join([str(scratch / "signature.json"), *decoder]),
            "--config-file",
            str(scratch / "model-config.yaml"),
        ]
        # The archiver empties and fills $TMPDIR/<model name>: two exports at once need folders of their own.
        environment = {**child_environment.tool(), "TMPDIR": str(scratch / "tmp")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode or not archive.is_file():
        said = done.stderr.splitlines()
        if any(full_disk(RuntimeError(line)) for line in said):  # whose traceback says no more
            number = errno.EFBIG if os.strerror(errno.EFBIG) in done.stderr else errno.ENOSPC
            written = archive.parent, Path(tempfile.gettempdir())
            fullest = min(written, key=lambda folder: shutil.disk_usage(folder).free)
            raise OSError(number, os.strerror(number), str(fullest))
        raise Problem(f"torch-model-archiver failed on {archive.name} (exit status {done.returncode})", said[-10:])

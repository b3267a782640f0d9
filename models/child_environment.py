"""The environment of a child process, made for it: a shell's variables reach more programs than they were set for.

LOCUST_RUN_TIME ends a trial, JAVA_TOOL_OPTIONS changes a JVM, PIP_TARGET moves an installation, a locale changes what
programs say and which file names they can open. So no child inherits this process's environment as it is:

    measured  what is measured, or measures: what a program needs to run, and nothing else
    tool      a tool of the user's (docker, kubectl, git, a compiler): his settings of it, and none of other programs
    pip       pip: of its own settings those of indexes and of the way to them
    export    training and exporting: also where the user's own modules lie (PYTHONPATH), and its threads

Imports the standard library only: it is part of images that hold no package.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

LOCALE = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
"""Of every child: file names may have any letter, and what programs say is read here, so it is not to be translated."""

KEEP = "TANDEM_KEEP"
"""The user's own list, separated by commas, of further variables for `measured`."""

_NEEDED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "TMPDIR", "HOSTNAME", "LD_LIBRARY_PATH", "JAVA_HOME"),
    *("CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
)
_OURS = ("TANDEM_", "XDG_")
# What configures other programs than the tool that is called. Of pip's settings, see `pip`.
_STRAY = (
    *("PYTHON", "VIRTUAL_ENV", "PIP_", "LOCUST_", "GEVENT_", "GRPC_"),
    *("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "JAVA_OPTS", "CLASSPATH", "LOG4J", "TS_"),
    *("TF_", "TORCH", "PYTORCH_", "XLA_", "KERAS_BACKEND", "ATEN_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_"),
    *("DNNL_", "ONEDNN_", "LC_", "LANG"),
    # Another repository, platform, set of files or of flags than the one that is asked for.
    *("GIT_", "DOCKER_DEFAULT_PLATFORM", "DOCKER_CONTENT_TRUST", "KUBECTL_"),
    *("COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_ENV_FILES", "COMPOSE_PROJECT_NAME", "COMPOSE_PATH_SEPARATOR"),
    *("COMPOSE_REMOVE_ORPHANS", "COMPOSE_IGNORE_ORPHANS"),
)
# Engines that the user adds lie on his PYTHONPATH; see `serving.engines.registry`.
_ENGINES = "TANDEM_ENGINES"
# kubectl's file of flags that the user wants by default.
_NO_FILES = {"KUBERC": "off", "KUBECTL_KUBERC": "false"}
INDEX = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST", "PIP_CERT"),
    *("PIP_CLIENT_CERT", "PIP_PROXY", "PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES", "PIP_KEYRING_PROVIDER"),
    *("PIP_CACHE_DIR", "PIP_NO_CACHE_DIR", "PIP_CONSTRAINT", "PIP_USE_DEPRECATED", "PIP_USE_FEATURE"),
)
"""Pip's settings of indexes, of the way to them, and of which builds may be taken from there."""


def measured(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """For a server, the load generator, and what watches them: no proxy either, as their peers are near."""
    given = _given(environment)
    names = (*_NEEDED, *kept(given), *(("PYTHONPATH",) if given.get(_ENGINES) else ()))
    return {name: value for name, value in given.items() if name in names or name.startswith(_OURS)} | LOCALE


def kept(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The variables that the user wants servers to get, too: see `KEEP`."""
    return tuple(name for one in environment.get(KEEP, "").split(",") if (name := one.strip()))


def tool(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """For a tool of the user's."""
    return {name: value for name, value in _given(environment).items() if not name.startswith(_STRAY)} | {
        **LOCALE,
        **_NO_FILES,
    }


def pip(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """For pip, whose configuration files it reads in any case."""
    given = _given(environment)
    return tool(given) | {name: given[name] for name in INDEX if name in given}


def export(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """For ``python -m models``."""
    given = _given(environment)
    return tool(given) | {name: given[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS") if name in given}


def clean() -> None:
    """Make this process's environment that of `export`, before it loads what reads it."""
    made = export()
    for name in os.environ.keys() - made.keys():
        del os.environ[name]
    os.environ.update(made)


def _given(environment: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environment is None else environment

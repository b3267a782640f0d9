"""The environment variables that numerical libraries read: whatever else the speed of a server hangs on."""

from __future__ import annotations

from collections.abc import Mapping

from serving.engines.engine import Switch

# OpenMP's (also GNU's and Intel's own), MKL's, oneDNN's under both of its names, PyTorch's and TensorFlow's.
PREFIXES = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "DNNL_", "ONEDNN_", "ATEN_", "OPENBLAS_"),
    *("TF_ENABLE_ONEDNN", "TF_ONEDNN_", "TF_NUM_", "TF_DISABLE_MKL"),
)


def in_force(environment: Mapping[str, str]) -> tuple[Switch, ...]:
    """Those of a server's ``environment`` that are set, by name."""
    return tuple(Switch(name, environment[name]) for name in sorted(environment) if name.startswith(PREFIXES))

"""The environment variables that numerical libraries and the C library read: whatever else the speed of a server hangs
on. A user's own reach servers, and are recorded with the figures."""

from __future__ import annotations

from collections.abc import Mapping

from models import child_environment
from serving.engines.engine import Switch

# OpenMP's (also GNU's and Intel's own), MKL's, oneDNN's under both of its names, PyTorch's and TensorFlow's; which
# allocator, and how it is tuned; which GPUs, and whether they round to TF32.
PREFIXES = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "DNNL_", "ONEDNN_", "ATEN_", "OPENBLAS_"),
    *("TF_ENABLE_ONEDNN", "TF_ONEDNN_", "TF_NUM_", "TF_DISABLE_MKL"),
    *("LD_PRELOAD", "MALLOC_", "GLIBC_TUNABLES", "TCMALLOC_"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_MPS_", "CUDA_MODULE_LOADING"),
    *("NVIDIA_TF32_", "TORCH_ALLOW_TF32_"),
    *("TF_FORCE_GPU_", "TF_GPU_", "TF_CUDNN_", "PYTORCH_CUDA_ALLOC", "PYTORCH_ALLOC_CONF"),
)


def tuning(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of an ``environment`` that are set."""
    return {name: value for name, value in environment.items() if name.startswith(PREFIXES)}


def in_force(environment: Mapping[str, str]) -> tuple[Switch, ...]:
    """Those of a server's ``environment`` that are set, and what else its user has it keep, by name."""
    names = {*tuning(environment), *child_environment.kept(environment)} & environment.keys()
    return tuple(Switch(name, environment[name]) for name in sorted(names))

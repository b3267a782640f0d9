"""Every batch size that a server may compute, asked for once before anything is measured.

On a GPU each size costs time when it is met first: TensorFlow times cuDNN's algorithms for it, PyTorch takes memory
and loads kernels. A request of n images, sent alone, is a batch of n, whatever the engine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.problem import Problem
from serving.client import Client, RequestFailed
from serving.engines import gpu
from serving.target import Target

TIMEOUT_S = 120.0  # of one size: cuDNN has many algorithms, and a large network many convolutions


def sizes(target: Target) -> range:
    """Those to ask for, the largest first, as memory that it leaves serves the others; none of a server on the CPU."""
    return range(target.max_batch_size, 0, -1) if gpu.computes_there(target.knobs) else range(0)


def touch(target: Target, reference: Path, protocol: str) -> None:
    """Send a request of each of `sizes`, of images of ``reference`` (a bundle's reference.npz). Raises `Problem` where
    one is not answered."""
    if not sizes(target):
        return
    with np.load(reference) as saved:
        images = saved["images"][: target.max_batch_size]
    with Client(target, timeout_s=TIMEOUT_S) as client:
        for size in sizes(target):
            batch = np.ascontiguousarray(np.resize(images, (size, *images.shape[1:])))
            try:
                client.predict(protocol, batch)
            except RequestFailed as error:
                raise Problem(f"{target.name}: a batch of {size} over {protocol} was not answered: {error}") from None

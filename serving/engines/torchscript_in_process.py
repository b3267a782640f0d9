"""A bundle's TorchScript file in this process, as engines that serve it run it: the floor that serving adds to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from models.precision import Precision

if TYPE_CHECKING:
    import numpy as np

    from models.bundle import Bundle
    from serving.profile import ServingProfile


def load(bundle: Bundle, profile: ServingProfile) -> Callable[[np.ndarray], object]:
    """A function from images uint8 [N, H, W, C] to probabilities float32 [N, classes]. It sets the threads, the oneDNN
    and the TF32 of the whole process."""
    if profile.onednn != "default":
        torch.backends.mkldnn.enabled = profile.onednn
    tf32 = "tf32" if profile.precision is Precision.TF32 else "ieee"
    for switch in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):
        switch.fp32_precision = tf32
    torch.set_num_threads(profile.threads)
    torch.set_num_interop_threads(1)
    device = "cuda" if profile.device == "gpu" else "cpu"
    model = torch.jit.load(str(bundle.torchscript), map_location=device).eval()

    def call(rows: np.ndarray) -> object:
        with torch.inference_mode():
            return model(torch.from_numpy(rows).to(device)).cpu().numpy()

    return call

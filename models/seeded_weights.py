"""Weights drawn from a seed, for architectures too large to train here: speed and parity are real, accuracy is not.

Layers start as He et al. (Delving Deep into Rectifiers, 2015) have it. Then real images decide what training would:
the statistics of every batch norm, so that activations neither die nor explode, and the scale of the logits, so that
classes differ from image to image and a wrong export shows in the best class as well.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from models import architectures
from models.architectures import ImageClassifier
from models.architectures.residual import Residual
from models.declaration import UNDECLARED, Intake

BATCH = 16
# Where branches weigh as much as shortcuts, an untrained deep network is chaotic: it blows rounding errors up tenfold,
# to the tolerance of parity (seen on resnet50). Goyal et al. (Accurate, Large Minibatch SGD, 2017) start training at 0.
BRANCH_WEIGHT = 0.2
SPREAD = 2.0  # standard deviation of each class' logits over images: best classes get about half of the probability


def classifier(
    model: str,
    classes: int,
    mean: list[float],
    std: list[float],
    images: np.ndarray,
    seed: int,
    intake: Intake = UNDECLARED,
) -> ImageClassifier:
    """A classifier in evaluation mode, calibrated on ``images`` uint8 [N, H, W, 3]; ``mean`` and ``std`` where
    ``intake`` declares no others.

    The same arguments give bitwise the same weights on the same machine with the same torch and as many threads.
    """
    made = architectures.build(model, classes, mean, std, intake)
    made.eval()
    _draw(made.network, seed)
    batches = torch.from_numpy(images).split(BATCH)
    _calibrate_norms(made, batches)
    _spread_logits(made, made.network.get_submodule(architectures.named(model).head), batches)
    return made


@torch.no_grad()
def _draw(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, Residual) and module.last_norm is not None:
            nn.init.constant_(module.last_norm.weight, BRANCH_WEIGHT)


@torch.no_grad()
def _calibrate_norms(made: ImageClassifier, batches: tuple[torch.Tensor, ...]) -> None:
    """Give every batch norm the mean of its batches' statistics."""
    norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = None  # a cumulative mean
        norm.reset_running_stats()
    for batch in batches:
        made.logits(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum


@torch.no_grad()
def _spread_logits(made: ImageClassifier, head: nn.Module, batches: tuple[torch.Tensor, ...]) -> None:
    """Scale and shift the last layer so that each class' logits have mean 0 and the same deviation over the images."""
    assert isinstance(head, nn.Linear)
    logits = torch.cat([made.logits(batch) for batch in batches]).double()
    scale = SPREAD / logits.std(dim=0).clamp_min(1e-6)
    head.weight.mul_(scale.unsqueeze(1))
    head.bias.add_(-logits.mean(dim=0)).mul_(scale)

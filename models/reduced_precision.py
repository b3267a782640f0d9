"""A classifier whose network computes in bfloat16 or float16, weights and activations; preprocessing and softmax stay
float32."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.architectures import ImageClassifier
from models.precision import Precision
from models.problem import Problem

TYPES = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
_CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)


class Reduced(nn.Module):
    """A network that takes and gives float32, and computes in a shorter type."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        """``network`` is changed. What is left of its batch normalisations keeps float32 statistics, as PyTorch's
        kernels take them beside shorter activations."""
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.float()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels.to(self.dtype)).to(torch.float32)


def at(classifier: ImageClassifier, precision: Precision) -> ImageClassifier:
    """The classifier (in evaluation mode) as its graphs are exported at ``precision``; itself in float32.

    Raises `Problem` where PyTorch cannot compute it so on this CPU.
    """
    if precision.exported is Precision.FP32:
        return classifier
    reduced = copy.deepcopy(classifier)
    try:
        fold_batch_norms(reduced.network, _given(reduced))
        reduced.network = Reduced(reduced.network, TYPES[precision]).eval()
        with torch.no_grad():
            reduced(reduced.example())
    except RuntimeError as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise Problem(
            f"precision = '{precision}': PyTorch cannot compute this model so on this CPU ({first}); use fp32"
        ) from None
    return reduced


@torch.no_grad()
def _given(classifier: ImageClassifier) -> Tensor:
    """What the network is given for the example: preprocessing may have changed its shape."""
    seen: list[Tensor] = []
    hook = classifier.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    classifier(classifier.example())
    hook.remove()
    return seen[0]


def fold_batch_norms(network: nn.Module, example: Tensor) -> None:
    """Fold the batch normalisations of ``network`` into the convolutions before them, in float32, where nothing else
    uses either: every exporter would, and from weights that have been rounded already.

    W' = f W, b' = f (b - mean) + o with f = s / sqrt(var + epsilon) (Ioffe and Szegedy, 2015).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, (example,))
    names = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}

    def module(placeholder: torch.fx.Node) -> str:
        """The path of the module whose parameter this is, and no other node uses; else empty."""
        name = names.get(placeholder.name, "") if len(placeholder.users) == 1 else ""
        return name.rpartition(".")[0]

    for node in program.graph.nodes:
        if node.target is not torch.ops.aten.batch_norm.default:
            continue
        before, mean = node.args[0], node.args[3]
        if before.target not in _CONVOLUTIONS or len(before.users) != 1 or mean is None:
            continue
        convolution, norm = module(before.args[1]), module(mean)
        if convolution and norm and type(network.get_submodule(convolution)) is nn.Conv2d:
            fused = fuse_conv_bn_eval(network.get_submodule(convolution), network.get_submodule(norm))
            network.set_submodule(convolution, fused)
            network.set_submodule(norm, nn.Identity())

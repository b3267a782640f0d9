"""A user's checkpoint: the weights of one of the architectures as PyTorch, torchvision or Tandem saved them."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import architectures, declaration
from models.architectures import ImageClassifier
from models.bundle import sha256
from models.declaration import UNDECLARED, Intake
from models.problem import Problem

# Where training scripts put the state dict beside epochs and optimizers: torchvision's, Lightning's, timm's, Tandem's.
WITHIN = ("state_dict", "model", "model_state_dict", "weights")
# Of DataParallel, of torch.compile, of Tandem's own classifier.
PREFIXES = ("module.", "_orig_mod.", "network.")
# Checkpoints of torchvision's DenseNet are older than its module names, which may hold no dots.
DENSENET_LAYERS = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.(\d)\.")
IMAGENET_MEAN = tuple(255 * mean for mean in (0.485, 0.456, 0.406))
IMAGENET_STD = tuple(255 * std for std in (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Checkpoint:
    """A state dict.

    tensors    as the file names them
    weights    the same as PyTorch and torchvision would name those of a network of the house
    mean, std  per channel, where the file holds them (Tandem's own do)
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read(path: Path) -> Checkpoint:
    """Read a checkpoint, running no code of it. Raises `Problem` for a file that is no state dict of finite numbers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a TorchScript archive is one: it is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Problem(f"CHECKPOINT={path}: no such file") from None
    except IsADirectoryError:
        raise Problem(f"CHECKPOINT={path}: a folder; name the file of the weights") from None
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"names {named[1]}" if named else "is not made of tensors alone"
        raise Problem(
            f"CHECKPOINT={path}: its pickle {what}, and code of a file is not run; save the weights only: "
            "torch.save(model.state_dict(), file)"
        ) from None
    except Exception as error:  # torch raises many kinds for a damaged file, some of them a bare number
        first = str(error).strip().partition("\n")[0].partition(". ")[0]
        why = first if " " in first else "no file of PyTorch's"
        raise Problem(
            f"CHECKPOINT={path}: not a checkpoint ({why}); save one with torch.save(model.state_dict(), file)"
        ) from None
    tensors = _state_dict(path, content)
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Problem(f"CHECKPOINT={path}: {key} holds NaN or infinity; use a checkpoint from before that")
    weights = {_key(key): tensor for key, tensor in tensors.items()}
    mean, std = (_channels(weights.pop(name, None)) for name in ("mean", "std"))
    return Checkpoint(path, sha256(path), tensors, weights, mean, std)


def classes(checkpoint: Checkpoint, model: str) -> int:
    """How many classes its head has. Raises `Problem` where it has none."""
    key = f"{architectures.named(model).head}.weight"
    head = checkpoint.weights.get(key)
    if head is None or head.ndim != 2:
        raise _other_network(checkpoint, model, f"{key} is missing" if head is None else f"{key} is {_sizes(head)}")
    return int(head.shape[0])


def classifier(
    checkpoint: Checkpoint, model: str, mean: list[float], std: list[float], intake: Intake = UNDECLARED
) -> ImageClassifier:
    """The classifier with the checkpoint's weights, in evaluation mode; ``mean`` and ``std`` where neither it nor
    ``intake`` has others.

    Raises `Problem` naming file and key for weights that are missing, too many, or shaped otherwise.
    """
    mean, std = list(checkpoint.mean or mean), list(checkpoint.std or std)
    made = architectures.build(model, classes(checkpoint, model), mean, std, intake)
    _fill(checkpoint, model, made.network, checkpoint.weights)
    made.eval()
    return made


def fill(checkpoint: Checkpoint, model: str, network: nn.Module) -> None:
    """Give a user's own network the checkpoint's weights, whose keys may have the prefixes of `PREFIXES`.

    Raises `Problem` as `classifier` does.
    """
    own = network.state_dict().keys()
    tensors = checkpoint.tensors
    forms: list[Mapping[str, Tensor]] = [tensors]
    forms += [{key.removeprefix(prefix): tensors[key] for key in tensors} for prefix in PREFIXES]
    forms += [{_key(key): tensors[key] for key in tensors}, checkpoint.weights]  # several of them; Tandem's own
    _fill(checkpoint, model, network, min(forms, key=lambda weights: len(weights.keys() ^ own)))


def _fill(checkpoint: Checkpoint, model: str, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    # Files of before PyTorch 0.4.1 do not count batches; evaluation does not look at the count.
    needed = [key for key in own if key in weights or not key.endswith(".num_batches_tracked")]
    if absent := [key for key in needed if key not in weights]:
        raise _other_network(checkpoint, model, f"{_some(absent)} missing")
    if beyond := [key for key in weights if key not in own]:
        raise _other_network(checkpoint, model, f"{_some(beyond)} too many")
    for key in needed:
        if weights[key].shape != own[key].shape:
            sizes = f"{key} is {_sizes(weights[key])} and not {_sizes(own[key])}"
            raise _other_network(checkpoint, model, sizes)
    network.load_state_dict({**own, **weights})


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    for name in WITHIN:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise Problem(
            f"CHECKPOINT={path}: holds a {type(content).__name__} and no state dict; save one with "
            "torch.save(model.state_dict(), file)"
        )
    tensors = {}
    for key, tensor in content.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise Problem(
                f"CHECKPOINT={path}: {key} is a {type(tensor).__name__} and no tensor; save the state dict alone: "
                "torch.save(model.state_dict(), file)"
            )
        tensors[key] = tensor.detach()
    return tensors


def _key(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return DENSENET_LAYERS.sub(r"\1\2.", key)


def _channels(values: Tensor | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values.reshape(-1).tolist())


def _other_network(checkpoint: Checkpoint, model: str, what: str) -> Problem:
    kind = "factory" if declaration.is_factory(model) else "architecture"
    return Problem(
        f"CHECKPOINT={checkpoint.path}: not the weights of {model}: {what}; name the {kind} that it was saved "
        "from as MODEL"
    )


def _some(keys: list[str]) -> str:
    return f"{keys[0]} is" if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more are"


def _sizes(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"

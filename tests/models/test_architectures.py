"""Each network is the published one: its size, its arithmetic, and the names of its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models import architectures

# Parameters and multiply-adds (millions), of convolutions and dense layers, of one image.
TORCHVISION = "torchvision 0.29: `num_params` and `_ops` of the weights' metadata in torchvision/models/*.py"
PUBLISHED = {
    "convnet": (10, 130_314, 3.889, "by hand: 75*64+64 + 12544*10+10; 28*28*64*75 + 12544*10"),
    "lenet": (10, 62_006, 0.652, "PyTorch's CIFAR-10 tutorial has these layers; 28²*6*75+10²*16*150+48000+10080+840"),
    "resnet20": (10, 272_474, 40.81, "chenyaofo/pytorch-cifar-models, README: 0.27 M, 40.81 MAdds (He et al.: 0.27 M)"),
    "resnet18": (1000, 11_689_512, 1814, TORCHVISION),
    "resnet50": (1000, 25_557_032, 4089, TORCHVISION),
    "mobilenet_v2": (1000, 3_504_872, 301, TORCHVISION),
    "efficientnet_b0": (1000, 5_288_548, 386, TORCHVISION),
    "densenet121": (1000, 7_978_856, 2834, TORCHVISION),
    "vgg11": (1000, 132_863_336, 7609, TORCHVISION),
}
# Written from the state dicts of torchvision 0.29: a line a weight, its key and its shape.
KEYS = Path(__file__).with_name("torchvision_keys")


def _on_paper(name: str, classes: int) -> torch.nn.Module:
    with torch.device("meta"):
        return architectures.named(name).network(classes).eval()


def test_every_family_of_the_house_is_held_to_a_published_size():
    assert PUBLISHED.keys() == architectures.ARCHITECTURES.keys()


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    classes, parameters, mega_multiply_adds, _ = PUBLISHED[name]
    network = _on_paper(name, classes)
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    side = architectures.named(name).side
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, side, side, device="meta"))
    assert counter.get_total_flops() / 2 / 1e6 == pytest.approx(mega_multiply_adds, rel=0.01)


@pytest.mark.parametrize("path", sorted(KEYS.iterdir()), ids=lambda path: path.stem)
def test_weights_are_named_and_shaped_as_torchvision_has_them(path):
    published = {}
    for line in path.read_text().splitlines():
        key, _, shape = line.partition(" ")
        published[key] = tuple(int(size) for size in shape.split("x")) if shape else ()
    own = {key: tuple(tensor.shape) for key, tensor in _on_paper(path.stem, 1000).state_dict().items()}
    assert own == published


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_head_is_the_layer_that_gives_the_logits(name):
    head = _on_paper(name, 7).get_submodule(architectures.named(name).head)
    assert isinstance(head, torch.nn.Linear)
    assert head.out_features == 7

"""The formats in which a model can be compared, and how far two runs of the same graph may lie apart in each.
Imports the standard library only: servers' containers read it, too."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """How a model's weights and activations are held, and what its products are computed from.

    FP32  float32, computed as such
    TF32  the graphs of FP32; a GPU may round the factors of convolutions and matrix products to 10 bits
    BF16  bfloat16 graphs: 8 bits of significand, float32's range
    FP16  float16 graphs: 11 bits of significand, up to 65,504
    """

    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"
    FP16 = "fp16"

    @property
    def exported(self) -> Precision:
        """The precision of the graphs that are exported for it."""
        return Precision.FP32 if self is Precision.TF32 else self

    @property
    def tolerance(self) -> float:
        """The largest |Δp| between a graph and eager PyTorch at this precision; docs/models.md derives it."""
        return TOLERANCES[self]


# Of FP32, far above its roundings, as what differs there is no rounding; of TF32, four times what it was seen to do. Of
# the shorter ones 16 u (u = 2^-8 and 2^-11, their unit roundoff): as much as a logit of up to 16 moves a probability at
# most where it moves by two units in its last place.
TOLERANCES = {
    Precision.FP32: 1e-4,
    Precision.TF32: 2**-10,
    Precision.BF16: 16 * 2**-8,
    Precision.FP16: 16 * 2**-11,
}

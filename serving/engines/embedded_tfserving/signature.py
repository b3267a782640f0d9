"""The ways in which a model can be called: named inputs and outputs, their types and shapes. Without TensorFlow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.engines.embedded_tfserving import tensors
from serving.engines.embedded_tfserving.json_document import shortened
from serving.engines.embedded_tfserving.status import invalid

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature. `shape` is None when the rank is unknown; an unknown size is -1."""

    alias: str
    name: str
    dtype: int
    shape: tuple[int, ...] | None

    @classmethod
    def of(cls, alias: str, info: Any) -> TensorInfo:
        """From the SavedModel's own message."""
        known = not info.tensor_shape.unknown_rank
        return cls(alias, info.name, info.dtype, tuple(dim.size for dim in info.tensor_shape.dim) if known else None)

    def check_type(self, position: int, dtype: int) -> None:
        """Raises `ServingError` unless a tensor of DataType `dtype` can be this input."""
        if dtype != self.dtype:
            wanted, given = tensors.type_name(self.dtype), tensors.type_name(dtype)
            raise invalid(f"Expects arg[{position}] to be {wanted} but {given} is provided")
        if dtype not in tensors.TYPES:
            raise invalid(f"input {self.alias}: tensors of type {tensors.type_name(dtype)} are not taken here")

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether the signature foresees an array of this shape."""
        if self.shape is None:
            return True
        sizes = zip(shape, self.shape, strict=False)
        return len(shape) == len(self.shape) and all(wanted in (size, -1) for size, wanted in sizes)


class Signature:
    """One named way to call the model; inputs and outputs in the order of their aliases."""

    def __init__(self, name: str, definition: Any) -> None:
        self.name = name
        self.inputs = [TensorInfo.of(alias, info) for alias, info in sorted(definition.inputs.items())]
        self.outputs = [TensorInfo.of(alias, info) for alias, info in sorted(definition.outputs.items())]
        self.input_names = {info.alias for info in self.inputs}

    def check_names(self, sent: Collection[str]) -> None:
        """Raises `ServingError` unless exactly this signature's inputs were sent."""
        if len(sent) != len(self.inputs) or not self.input_names.issuperset(sent):
            self._mismatch(sorted(sent))

    def _mismatch(self, sent: list[str]) -> None:
        wanted = sorted(self.input_names)
        if len(sent) != len(wanted):
            extra = sorted(set(sent) - self.input_names)
            missing = sorted(self.input_names - set(sent))
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(wanted)} len({{{','.join(sent)}}}) != "
                f"len({{{','.join(wanted)}}}). Sent extra: {{{','.join(extra)}}}. "
                f"Missing but required: {{{','.join(missing)}}}."
            )
        first = next(info for info in self.inputs if info.alias not in sent)
        raise invalid(
            f"Signature input alias: {first.alias}(feed name: {first.name}) not found in request and no default "
            f"value provided. Inputs expected to be in the request {{{','.join(sent)}}}, or default input alias set: "
        )

    def filter(self, aliases: Sequence[str]) -> list[int]:
        """Positions of the outputs that a client asked for; raises `ServingError`."""
        names = [info.alias for info in self.outputs]
        positions: list[int] = []
        for alias in aliases:
            if alias not in names:
                raise invalid(
                    f"output tensor alias not found in signature: {alias} "
                    f"Outputs expected to be in the set {{{','.join(names)}}}."
                )
            if names.index(alias) in positions:
                raise invalid(f"duplicate output tensor alias: {alias}")
            positions.append(names.index(alias))
        return sorted(positions)


Signatures = Mapping[str, Signature]


def rest_signature(signatures: Signatures, name: str) -> Signature:
    """The signature of that name, the default one for the empty name; raises `ServingError` in REST's words."""
    signature = signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise invalid(f'Serving signature name: "{shortened(name or DEFAULT_SIGNATURE)}" not found in signature def')
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    return signature

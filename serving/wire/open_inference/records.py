"""What the protocol's messages say, whichever way they came."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NamedTensor:
    """An input or an output with its values.

    datatype  the protocol's name: "FP32"
    values    in the tensor's shape; BF16 as float32, BYTES as objects that are bytes
    """

    name: str
    datatype: str
    values: np.ndarray


@dataclass(frozen=True)
class Answer:
    """An inference response; what it leaves out is empty."""

    model: str
    version: str
    id: str
    outputs: tuple[NamedTensor, ...]


@dataclass(frozen=True)
class ServerMetadata:
    """A server's name and version, and the extensions that it knows, such as "binary_tensor_data"."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class TensorMetadata:
    """An input or output of a model. datatype: the protocol's name; shape: -1 where a size may vary."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """A model, its versions that may be asked for, and its framework or backend."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]

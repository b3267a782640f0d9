"""What can compute behind Triton: of each library Triton's own backend, and the Python backend around it. Imports the
standard library only.

The server of the wheel has the Python backend alone; NVIDIA's image has all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serving.engines.engine import Backend, Place

if TYPE_CHECKING:
    from models.bundle import Bundle


@dataclass(frozen=True)
class Library:
    """A library that Triton computes with.

    name     as config.pbtxt's parameter "library" says it to `python_model`
    title    as people read it
    package  the Python package that the Python backend imports
    native   the name of Triton's own backend for its files
    file     what such a file is called in a model repository
    of       the file in a bundle
    threads  the parameter that sets the threads of one computation in Triton's own backend
    """

    name: str
    title: str
    package: str
    native: str
    file: str
    of: Callable[[Bundle], Path]
    threads: str

    @property
    def python(self) -> Backend:
        """The Python backend around this library: its models run in stub processes, one an instance, which get the
        tensors through shared memory."""
        return Backend("Python", self.title, Place.BESIDE, instead_of=self.native)

    @property
    def own(self) -> Backend:
        """Triton's own backend."""
        return Backend(self.native, self.title, Place.SERVER)


ONNX_RUNTIME = Library(
    name="onnxruntime",
    title="ONNX Runtime",
    package="onnxruntime",
    native="onnxruntime",
    file="model.onnx",
    of=lambda bundle: bundle.onnx,
    threads="intra_op_thread_count",
)
TORCHSCRIPT = Library(
    name="torchscript",
    title="TorchScript",
    package="torch",
    native="pytorch",
    file="model.pt",
    of=lambda bundle: bundle.torchscript,
    threads="INTRA_OP_THREAD_COUNT",
)

"""What Triton's Python backend runs, as model.py in the model repository: one batch of requests at a time, by ONNX
Runtime or TorchScript. Knows nothing of Tandem.

The backend's own arrays do not work with numpy 2, so tensors come and go by DLPack, which copies nothing.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Protocol

# The stub that runs this ignores PYTHONPATH. At the end: what Triton brings itself comes first.
sys.path.extend(os.environ["TANDEM_PACKAGES"].split(os.pathsep))

import triton_python_backend_utils as triton

INPUT, OUTPUT = "images", "probabilities"
WARM_UP_BATCHES = (1, 2, 8, 32)


class Model(Protocol):
    """``answer``: the tensors of a batch's requests, images uint8 [N, H, W, C] each → of each request the
    probabilities, float32 [N, classes], as DLPack."""

    def answer(self, tensors: Sequence[Any]) -> Sequence[Any]: ...

    def warm_up(self, shape: Sequence[int]) -> None: ...

    def switches(self) -> dict[str, Any]: ...


class TritonPythonModel:
    """The class that the backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the file that the configuration names, and run it a few times."""
        config = json.loads(args["model_config"])
        given = {name: value["string_value"] for name, value in config["parameters"].items()}
        makers: dict[str, type[OnnxRuntime] | type[TorchScript]]
        makers = {"onnxruntime": OnnxRuntime, "torchscript": TorchScript}
        self.model: Model = makers[given["library"]](given["file"], int(given["threads"]))
        shape = [int(size) for size in config["input"][0]["dims"]]
        if min(shape) > 0:
            self.model.warm_up(shape)
        print("tandem switches", json.dumps(self.model.switches()), flush=True)
        # What is loaded stays: a collection that looks at all of it stops every request for milliseconds.
        gc.collect()
        gc.freeze()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests, in their order."""
        tensors = [triton.get_input_tensor_by_name(request, INPUT) for request in requests]
        try:
            answers = self.model.answer(tensors)
        except Exception as error:  # whatever it is, each request gets it as its answer, and the server lives on
            failed = triton.TritonError(f"{type(error).__name__}: {error}")
            return [triton.InferenceResponse(error=failed) for _ in requests]
        return [triton.InferenceResponse([triton.Tensor.from_dlpack(OUTPUT, one)]) for one in answers]


class Lent:
    """A tensor of Triton's as numpy takes it. Triton's knows no keywords but `stream`, and numpy tries others first."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __dlpack__(self, **_: object) -> Any:
        return self.tensor.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU


def given(rows: Any) -> Any:
    """A numpy array's rows as a capsule that Triton takes, which frees them itself. It marks a capsule that it took
    with another word than numpy looks for, and without this numpy would print an error for each one."""
    capsule = rows.__dlpack__()
    _set_destructor(capsule, None)
    return capsule


_set_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
_set_destructor.argtypes = [ctypes.py_object, ctypes.c_void_p]


class OnnxRuntime:
    """An ONNX file in ONNX Runtime, on the CPU."""

    def __init__(self, file: str, threads: int) -> None:
        import numpy
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.numpy = numpy
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def answer(self, tensors: Sequence[Any]) -> Sequence[Any]:
        images = [self.numpy.from_dlpack(Lent(tensor)) for tensor in tensors]
        batch = images[0] if len(images) == 1 else self.numpy.concatenate(images)
        (probabilities,) = self.session.run([OUTPUT], {INPUT: batch})
        ends = accumulate(map(len, images), initial=0)
        return [given(probabilities[first:end]) for first, end in pairwise(ends)]

    def warm_up(self, shape: Sequence[int]) -> None:
        for size in WARM_UP_BATCHES:
            self.session.run([OUTPUT], {INPUT: self.numpy.zeros((size, *shape), self.numpy.uint8)})

    def switches(self) -> dict[str, Any]:
        return {}  # it computes with kernels of its own (MLAS), which have none


class TorchScript:
    """A TorchScript file in PyTorch, on the CPU."""

    def __init__(self, file: str, threads: int) -> None:
        import torch

        if onednn := os.environ.get("TANDEM_TORCH_ONEDNN"):
            torch.backends.mkldnn.enabled = onednn == "1"
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.torch = torch
        self.module = torch.jit.load(file, map_location="cpu").eval()

    def answer(self, tensors: Sequence[Any]) -> Sequence[Any]:
        images = [self.torch.from_dlpack(tensor.to_dlpack()) for tensor in tensors]
        with self.torch.inference_mode():
            probabilities = self.module(images[0] if len(images) == 1 else self.torch.cat(images))
            rows: Sequence[Any] = probabilities.contiguous().split(list(map(len, images)))
        return rows

    def warm_up(self, shape: Sequence[int]) -> None:
        for size in WARM_UP_BATCHES * 2:  # TorchScript specialises itself in the first runs
            with self.torch.inference_mode():
                self.module(self.torch.zeros((size, *shape), dtype=self.torch.uint8))

    def switches(self) -> dict[str, Any]:
        backends = self.torch.backends
        return {
            "oneDNN": backends.mkldnn.is_available() and backends.mkldnn.enabled,
            "quantized engine": backends.quantized.engine,
        }

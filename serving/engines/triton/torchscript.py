"""NVIDIA Triton once more, with TorchScript behind it instead of ONNX Runtime."""

from serving.engines.triton.engine import TritonTorchScript

ENGINE = TritonTorchScript()

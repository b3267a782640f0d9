"""Runs an ONNX model by the importer's TensorFlow graph and by ONNX Runtime, for the importer's tests."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

from models import savedmodel
from models.tensorflow_quietly import tf


def imported(model: onnx.ModelProto, feeds: dict[str, np.ndarray], known: bool = False) -> list[np.ndarray]:
    """The outputs of the importer's graph; sizes that the model leaves open stay open unless they are ``known``."""
    importer = savedmodel.Importer(model)
    specs = {}
    for name, array in feeds.items():
        sizes = [size.dim_value or None for size in importer.inputs[name].type.tensor_type.shape.dim]
        specs[name] = tf.TensorSpec(list(array.shape) if known else sizes, tf.as_dtype(array.dtype), name)

    @tf.function(input_signature=[specs], autograph=False)
    def run(tensors):
        values = importer.build(tensors)
        return [tf.convert_to_tensor(values[name].logical()) for name in importer.outputs]

    return [tensor.numpy() for tensor in run({name: tf.constant(array) for name, array in feeds.items()})]


def expected(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """ONNX Runtime's outputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # some tests ask for what it refuses
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)

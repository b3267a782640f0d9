"""The small CNN of the recorded figures as a SavedModel: `python -m models.small_cnn FOLDER [WIDTH]`.

Same graph and seed as the recordings' `cnn` version 1, so that figures compare with those of the real server. With a
WIDTH it has so many times the channels, and computes for longer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

SEED = 101


class SmallCnn(tf.Module):
    """uint8 images [N, 32, 32, 3] to probabilities [N, 10] and classes [N]."""

    def __init__(self, seed: int = SEED, width: int = 1) -> None:
        random = np.random.RandomState(seed)
        self.conv1 = tf.Variable((random.randn(3, 3, 3, 16 * width) * 0.2).astype("f"))
        self.conv2 = tf.Variable((random.randn(3, 3, 16 * width, 32 * width) * 0.1).astype("f"))
        self.dense = tf.Variable((random.randn(8 * 8 * 32 * width, 64) * 0.05).astype("f"))
        self.output = tf.Variable((random.randn(64, 10) * 0.3).astype("f"))
        self.bias = tf.Variable(np.zeros(10, "f"))

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.uint8, name="images")])
    def serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The serving signature."""
        x = tf.cast(images, tf.float32) / 255.0
        x = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, self.conv1, 1, "SAME")), 2, 2, "VALID")
        x = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, self.conv2, 1, "SAME")), 2, 2, "VALID")
        x = tf.nn.relu(tf.reshape(x, [-1, self.dense.shape[0]]) @ self.dense)
        probabilities = tf.nn.softmax(x @ self.output + self.bias)
        return {"probabilities": probabilities, "classes": tf.argmax(probabilities, -1)}


def main(folder: Path, width: int = 1) -> None:
    """Write version 1 of the model under `folder`."""
    model = SmallCnn(width=width)
    tf.saved_model.save(model, str(folder / "1"), signatures={"serving_default": model.serve})


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

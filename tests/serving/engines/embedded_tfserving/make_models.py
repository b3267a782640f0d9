"""Makes the models of the recordings: python -m tests.serving.engines.embedded_tfserving.make_models FOLDER.

Same seeds and graphs as the recorder's, so that outputs are those of the recordings.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import tensorflow as tf

from models.small_cnn import SmallCnn


class Misc(tf.Module):
    """Signatures of many types."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def f(self, x):
        return {"y": x * 2.0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text_bytes")])
    def b(self, text_bytes):
        return {"echo_bytes": text_bytes, "length": tf.strings.length(text_bytes)}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.float32, name="a"), tf.TensorSpec([None], tf.float32, name="b")]
    )
    def two(self, a, b):
        return {"sum": a + b, "logratio": tf.math.log(a) / b}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="s")])
    def scalar(self, s):
        return {"out": s + 1.0}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int32, name="i"),
            tf.TensorSpec([None], tf.bool, name="q"),
            tf.TensorSpec([None], tf.int64, name="l"),
        ]
    )
    def ints(self, i, q, l):  # noqa: E741 (the recordings' name)
        return {"i2": i * 2, "notq": tf.logical_not(q), "l2": l * 2, "half": tf.cast(l, tf.float64) / 3}


class Slow(tf.Module):
    """Takes as many matrix products as its input says."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def f(self, x):
        n = tf.cast(tf.reduce_max(x), tf.int32)
        a = tf.ones([300, 300]) / 300.0
        i = tf.constant(0)
        while i < n:
            a = tf.matmul(a, tf.ones([300, 300]) / 300.0)
            i += 1
        return {"y": x + a[0, 0] * 0.0}


def main(folder: Path) -> None:
    """Write `models/cnn/{1,2}`, `models/misc/1` and `models/slow/1` under `folder`."""
    for version, seed in ((1, 101), (2, 202), (3, 303)):
        cnn = SmallCnn(seed)
        tf.saved_model.save(
            cnn,
            f"{folder}/models/{'cnn' if version < 3 else 'cnn_v3'}/{version}",
            signatures={"serving_default": cnn.serve},
        )
    misc = Misc()
    signatures = {"serving_default": misc.f, "bytes": misc.b, "two": misc.two, "scalar": misc.scalar, "ints": misc.ints}
    tf.saved_model.save(misc, f"{folder}/models/misc/1", signatures=signatures)
    slow = Slow()
    tf.saved_model.save(slow, f"{folder}/models/slow/1", signatures={"serving_default": slow.f})


if __name__ == "__main__":
    main(Path(sys.argv[1]))

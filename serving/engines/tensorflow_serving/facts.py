"""What the report's checklist states of TensorFlow Serving."""

from __future__ import annotations

from serving.engines.engine import Fact, Topic

FACTS = (
    Fact(
        Topic.EXPERIENCE,
        "TensorFlow Serving runs a SavedModel alone: other processing belongs into its graph or in front of it.",
        "TensorFlow: SavedModel",
        "https://www.tensorflow.org/guide/saved_model",
    ),
    Fact(
        Topic.NEEDS,
        "TensorFlow Serving serves several models and versions at once, with labels such as canary and stable.",
        "TensorFlow Serving: configuration",
        "https://www.tensorflow.org/tfx/serving/serving_config",
    ),
    Fact(
        Topic.SCALE,
        "TensorFlow Serving batches requests that wait together; how long a batch may wait trades latency for "
        "throughput.",
        "TensorFlow Serving: batching guide",
        "https://github.com/tensorflow/serving/tree/master/tensorflow_serving/batching",
    ),
    Fact(
        Topic.HARDWARE,
        "TensorFlow Serving recommends its Docker images, also as the easiest way to a GPU.",
        "TensorFlow Serving: setup",
        "https://www.tensorflow.org/tfx/serving/setup",
    ),
    Fact(
        Topic.DOCUMENTATION,
        "TensorFlow Serving’s guides and API reference are part of TensorFlow’s documentation.",
        "TensorFlow Serving’s guide",
        "https://www.tensorflow.org/tfx/guide/serving",
    ),
    Fact(
        Topic.MAINTENANCE,
        "TensorFlow Serving is released beside TensorFlow: its API package has reached 2.21.0, as TensorFlow has.",
        "tensorflow-serving-api on PyPI",
        "https://github.com/tensorflow/serving",
    ),
)

"""TensorFlow Serving: its calls, its configuration, and how ``tensorflow_model_server`` is started."""

from serving.engines.tensorflow_serving.engine import TensorFlowServing

ENGINE = TensorFlowServing()

"""A TF-Serving-compatible server on the real TensorFlow runtime, for machines without `tensorflow_model_server`.

Its name is `embedded-tfserving` (see `identity`); it is not TensorFlow Serving and never says so.
"""

from serving.engines.embedded_tfserving.engine import EmbeddedTensorFlowServing

ENGINE = EmbeddedTensorFlowServing()

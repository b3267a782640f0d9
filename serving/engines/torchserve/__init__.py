"""TorchServe: its calls, its configuration, how it is started, and the handler that goes into a model archive."""

from serving.engines.torchserve.engine import TorchServe

ENGINE = TorchServe()

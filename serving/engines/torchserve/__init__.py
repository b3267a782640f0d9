"""TorchServe: the handler that goes into a model archive, the rendered configuration, and Java to run it on."""

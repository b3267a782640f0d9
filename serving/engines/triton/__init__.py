"""NVIDIA Triton: its calls, its configuration, how its server is started, and what its Python backend runs."""

from serving.engines.triton.engine import Triton

ENGINE = Triton()

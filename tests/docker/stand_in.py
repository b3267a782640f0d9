"""A base image in the place of tensorflow/serving, which needs a registry: without Python, as that one, and with a
program in the server's place that prints its flags."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from serving.runtimes.containers import base_images, docker_cli

NAME = "tandem-test/tensorflow-serving:stand-in"
DOCKERFILE = """FROM tandem-test/debian:bookworm
RUN printf '#!/bin/sh\\nprintf "%%s\\\\n" "$@"\\nexec sleep 600\\n' > /usr/bin/tensorflow_model_server \\
    && chmod +x /usr/bin/tensorflow_model_server
"""


@contextmanager
def tensorflow_serving() -> Iterator[None]:
    """Builds start from it for the length of a ``with`` block; base images are taken by their tags."""
    built = subprocess.run(
        ["docker", "build", "-t", NAME, "-"], input=DOCKERFILE, text=True, capture_output=True, check=False
    )
    assert built.returncode == 0, built.stderr
    bases = {**base_images.variables(digests=False), "TENSORFLOW_SERVING_IMAGE": NAME}
    try:
        with mock.patch.object(base_images, "variables", return_value=bases):
            yield
    finally:
        docker_cli.docker("rmi", NAME)

"""A base image in the place of tensorflow/serving, which needs a registry: without Python, as that one, and with a
program in the server's place that says of itself what it is told, and prints its flags."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from serving.runtimes.containers import base_images, docker_cli

NAME = "tandem-test/tensorflow-serving:stand-in"
VERSION = "2.20.0-stand-in"
SAYS = f"TensorFlow ModelServer: {VERSION}"
DOCKERFILE = r"""FROM tandem-test/debian:bookworm
RUN printf '#!/bin/sh\n[ "$1" = --version ] && echo "SAYS" && exit\nprintf "%%s\\n" "$@"\nexec sleep 600\n' \
    > /usr/bin/tensorflow_model_server && chmod +x /usr/bin/tensorflow_model_server
"""


@contextmanager
def tensorflow_serving(says: str = SAYS) -> Iterator[None]:
    """Builds start from it for the length of a ``with`` block; base images are taken by their tags. ``says``: what its
    program says when it is asked for its version."""
    dockerfile = DOCKERFILE.replace("SAYS", says)
    built = subprocess.run(
        ["docker", "build", "-t", NAME, "-"], input=dockerfile, text=True, capture_output=True, check=False
    )
    assert built.returncode == 0, built.stderr
    bases = {**base_images.variables(digests=False), "TENSORFLOW_SERVING_IMAGE": NAME}
    try:
        with mock.patch.object(base_images, "variables", return_value=bases):
            yield
    finally:
        docker_cli.docker("rmi", NAME)

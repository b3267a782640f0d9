"""``tf``, imported without the lines that its C++ parts write to the user's terminal while they start."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["tf"]


@contextmanager
def stderr_hidden() -> Iterator[None]:
    """Hide what is written to file descriptor 2, also by C++; after an exception it is shown."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            hidden.seek(0)
            os.write(2, hidden.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Without this `import tensorflow` loads all of Keras, which nothing here uses through it: a third of its time.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
with stderr_hidden():
    import tensorflow as tf

    tf.constant(0)  # starts the devices, which has more to say

"""`python -m serving.engines.embedded_tfserving`: start the server."""

from __future__ import annotations

import sys

from serving.engines.embedded_tfserving.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

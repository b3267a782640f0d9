"""`python -m serving.tfserving`: start the server."""

from __future__ import annotations

import sys

from serving.tfserving.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What this server calls itself, everywhere: log, `--version`, metrics, HTTP/2 debug data."""

from __future__ import annotations

NAME = "embedded-tfserving"
VERSION = "0.1.0"

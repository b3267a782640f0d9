"""Any server that is asked over HTTP, by a request that the user describes."""

from serving.engines.http.engine import Http

ENGINE = Http()

"""How long the model takes without any server around it: `python -m serving.engines.model_time BUNDLE ENGINE …`.

Prints one JSON object, `Times`: mean milliseconds of one call, on the cores that it is started on and with the threads,
the oneDNN and the precision of the profile. What a server adds to that is serving.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from models.bundle import load
from models.precision import Precision
from serving.engines import registry
from serving.profile import DEVICES, ServingProfile, parser_of

WARM_UP_CALLS = 5
LEAST_CALLS = 10
LONG_S = 0.6
SLOW_CALLS = 3  # are enough of a call that takes long, and so varies little
Call = Callable[[Any], object]


class Times(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Images in a batch → mean milliseconds: of the model (`ms`), and where clients send files, of decoding these."""

    ms: dict[int, float] = {}
    decoding_ms: dict[int, float] = {}


def measure(call: Call, images: np.ndarray, batches: list[int], seconds: float) -> dict[int, float]:
    """Batch size → mean milliseconds of `call` on so many of `images` [N, H, W, C], or of files, bytes [N], each over
    `seconds` at least, and over `LEAST_CALLS` unless that takes several times as long."""
    found = {}
    for batch in batches:
        rows = _rows(images, batch)
        _repeat(call, rows, least=WARM_UP_CALLS, seconds=0.0)
        began = time.perf_counter()
        calls = _repeat(call, rows, least=max(LEAST_CALLS, len(rows)), seconds=seconds)
        found[batch] = (time.perf_counter() - began) / calls * 1e3
    return found


def _rows(images: np.ndarray, batch: int) -> list[np.ndarray]:
    """What is called with in turn: the same images, or all files, as these take unlike time."""
    turns = -(-len(images) // batch) if images.dtype.kind == "O" else 1
    taken = np.resize(images, (turns * batch, *images.shape[1:]))
    return [np.ascontiguousarray(part) for part in np.split(taken, turns)]


def _repeat(call: Call, rows: Sequence[np.ndarray], least: int, seconds: float) -> int:
    """Call until there were so many and so long; how often."""
    calls, began = 0, time.perf_counter()
    while calls < SLOW_CALLS or (took := time.perf_counter() - began) < seconds or (calls < least and took < LONG_S):
        call(rows[calls % len(rows)])
        calls += 1
    return calls


def main(arguments: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m serving.engines.model_time", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("engine", choices=[one.id for one in registry.startable()])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--onednn", type=parser_of("onednn"), default="default", help="true, false or %(default)s")
    parser.add_argument("--precision", type=parser_of("precision"), default=Precision.FP32, help="%(default)s")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="%(default)s")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=0.15, help="of each batch size")
    parser.add_argument("--cores", type=int, nargs="*", default=[], help="CPUs to stay on")
    options = parser.parse_args(arguments)
    if options.cores:
        os.sched_setaffinity(0, options.cores)
    profile = ServingProfile(
        threads=options.threads,
        onednn=options.onednn,
        precision=options.precision,
        device=options.device,
    )
    bundle = load(options.bundle)
    with np.load(bundle.reference) as values:
        images, files = values["images"][:64], _files(values)
    engine = registry.engine(options.engine)
    ms = measure(engine.model_time(bundle, profile), images, options.batches, options.seconds)
    decoder = engine.decoder(bundle) if len(files) else None
    decoding_ms = measure(decoder, files, options.batches, options.seconds) if decoder else {}
    print(msgspec.json.encode(Times(ms=ms, decoding_ms=decoding_ms)).decode())
    return 0


def _files(reference: Mapping[str, np.ndarray]) -> np.ndarray:
    """The first of the files that clients send, bytes [N]; empty where they send tensors."""
    if "encoded" not in reference:
        return np.empty(0, object)
    offsets = reference["offsets"][:65]
    pieces = np.split(reference["encoded"][: offsets[-1]], offsets[1:-1])
    return np.array([piece.tobytes() for piece in pieces], object)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

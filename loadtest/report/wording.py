"""Figures and names as people read them: three significant digits, a unit everywhere, intervals in one style."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Protocol

from serving.engines import registry
from serving.engines.engine import Backend, Place

NOTHING = "–"
PROTOCOLS = {"grpc": "gRPC", "rest": "REST", "rest-binary": "REST (binary)"}
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
ISOLATE, END_ISOLATE = "\u2068", "\u2069"
CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
TURNING = {"R", "AL", "AN", *CONTROLS}
_PLACES = {Place.SERVER: "the server’s process", Place.BESIDE: "a process beside the server’s"}
PERCENTILES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9", "max": "max"}


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits, never in scientific notation: 0.0412, 4.12, 41.2, 412, 1,230."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    rounded = round(value, digits - 1 - math.floor(math.log10(abs(value))))
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{min(max(0, decimals), 9)}f}"


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return NOTHING if value is None else f"{value:,.0f}"


def milliseconds(value: float | None) -> str:
    """A duration in milliseconds."""
    return NOTHING if value is None else f"{number(value)} ms"


def brief_milliseconds(value: float | None) -> str:
    """A duration in milliseconds for whoever reads one sentence: 3.9 ms, 11 ms, 148 ms."""
    return NOTHING if value is None else f"{number(value, 2 if value < 100 else 3)} ms"


def setting(value: float | None, unit: str) -> str:
    """A chosen value, which is exact: 50 ms, not 50.0 ms."""
    return NOTHING if value is None else f"{value:,.10g} {unit}"


def scientific(value: float | None) -> str:
    """A very small difference: 4.8 × 10⁻⁷."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')} × 10{str(int(exponent)).translate(RAISED)}"


def plural(number_of: int | None, thing: str) -> str:
    """ "1 thread", "2 threads"."""
    return f"{number_of} {thing}{'' if number_of == 1 else 's'}"


def seconds(value: float | None) -> str:
    """A duration in minutes and seconds."""
    if value is None:
        return NOTHING
    whole = round(value)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{number(value)} s"


def roughly(seconds: float) -> str:
    """A duration that is only estimated: "40 seconds", "3 minutes", "2 hours"."""
    for length, unit in ((1, "second"), (60, "minute"), (3600, "hour")):
        if seconds < 90 * length or unit == "hour":
            break
    return plural(max(1, round(seconds / length)), unit)


def times(*values: float) -> list[str]:
    """Ratios that stand together, with as many decimals as it takes to tell each from 1: 2.0, 1.04, 12, 0.45."""
    decimals = 1
    while decimals < 3 and any(round(value, decimals) == 1 != value for value in values):
        decimals += 1
    return [
        f"{value:.{decimals}f}" if value > 0.95 and round(value, decimals) < 10 else number(value, 2)
        for value in values
    ]


def effect(ratio: float) -> str:
    """A ratio above 1 that can be found, never rounded down to one that cannot: 1.04, 1.3, 5.5, 38."""
    steps = 100 if ratio < 2 else 10 if ratio < 10 else 1
    return f"{math.ceil(round(ratio * steps, 6)) / steps:,.2f}".rstrip("0").rstrip(".")


def between(low: float, high: float) -> str:
    """An interval of a ratio: "1.8–2.2"."""
    return "–".join(times(low, high))


def rate(value: float | None) -> str:
    """Requests per second: whole from 100 on and where it is whole, three digits below."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}/s" if abs(value) >= 100 or float(value).is_integer() else f"{number(value)}/s"


def images(value: float | None) -> str:
    """Images per second."""
    return NOTHING if value is None else f"{rate(value)[:-2]} images/s"


def money(value: float | None, currency: str) -> str:
    """An amount of money: 0.0123 USD, 1,230 USD."""
    return NOTHING if value is None else f"{number(value)} {currency}"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return NOTHING if value is None else f"{number(value * 100, 2) if value < 0.995 else number(value * 100, 4)} %"


def precise_share(value: float | None) -> str:
    """A share in which the last digits matter: 89.34 %."""
    return NOTHING if value is None else f"{number(value * 100, 4)} %"


def gibibytes(value: float | None) -> str:
    """An amount of memory."""
    return NOTHING if value is None else f"{number(value / 2**30)} GiB"


def interval(bounds: Sequence[float | None] | None, plain_rate: bool = False) -> str:
    """A 95 % interval without its unit: "3.98–4.30"; an open end is written as such."""
    if not bounds:
        return NOTHING
    low, high = (None if end is None else (rate(end)[:-2] if plain_rate else number(end)) for end in bounds)
    if low is None or high is None:
        return NOTHING if low is high else (f"at least {low}" if high is None else f"at most {high}")
    return f"{low}–{high}"


def plain(value: object) -> str:
    """A setting as a TOML file has it, text without its quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def switch(value: bool | str | None) -> str:
    """What a server said of a switch, or what a variable was."""
    if value is None:
        return "not said"
    return value if isinstance(value, str) else "on" if value else "off"


def listed(names: Sequence[str], word: str = "and") -> str:
    """Names in a row: "A", "A and B", "A, B and C"."""
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


def protocol(name: str) -> str:
    """A protocol's name."""
    return PROTOCOLS.get(name, name)


class HasEngine(Protocol):
    """What is measured, or was, of a server: the engine's id and its version; None where the run did not save them."""

    @property
    def engine(self) -> str | None: ...

    @property
    def engine_version(self) -> str | None: ...

    @property
    def backend(self) -> Backend | None: ...


class Named(HasEngine, Protocol):
    """A server with the name that the experiment gives it."""

    @property
    def name(self) -> str: ...


def target_name(name: str) -> str:
    """A target's name without its engine: of an engine's default target the framework that it serves."""
    return _frameworks().get(name) or isolated(name)


def _frameworks() -> dict[str, str]:
    return {engine.default_target: engine.framework for engine in registry.all()}


def product(engine: str | None) -> str:
    """An engine's name without its version; an unknown engine's id as it is."""
    known = registry.find(engine) if engine else None
    return known.title if known else isolated(engine or "engine unknown")


def answered(server: HasEngine) -> str:
    """The product that answered, without its version; with its backend where that is not its own for such a model:
    "Triton’s Python backend"."""
    name = product(server.engine)
    return f"{name}’s {server.backend.name} backend" if server.backend and server.backend.instead_of else name


def engine(server: HasEngine) -> str:
    """Engine and release: "TorchServe 0.12.0". A stand-in keeps its own name: it is not what it stands in for."""
    return f"{answered(server)} {isolated(release(server.engine_version or ''))}".strip()


def engine_in_full(server: HasEngine) -> str:
    """Engine and version, with its build and the versions of what it runs on."""
    return f"{answered(server)} {isolated(server.engine_version or '')}".strip()


def backend(item: Backend) -> str:
    """What computes behind a server: "Python backend around ONNX Runtime, in a process beside the server's"."""
    around = f" around {item.library}" if item.instead_of else ""
    return f"{item.name} backend{around}, in {_PLACES[item.place]}"


def release(version: str) -> str:
    """A version without its build (SemVer's "+...") and without what it runs on, in brackets at the end: 2.20.0 of
    "2.20.0+dev.sha.bc7e9d2 (tensorflow 2.20.0)"."""
    return re.sub(r"(?<=\w)\+[0-9A-Za-z.-]+", "", re.sub(r" \(.*\)$", "", version))


def target(server: Named) -> str:
    """A target with its engine: "PyTorch (TorchServe 0.12.0)"."""
    return f"{target_name(server.name)} ({engine(server)})"


def shorten(text: str, limit: int = 60) -> str:
    """Text cut to so many characters, with an ellipsis; what `isolated` opened is closed."""
    if len(text) <= limit:
        return text
    cut = text[: limit - 1] + "…"
    return cut + END_ISOLATE * (cut.count(ISOLATE) - cut.count(END_ISOLATE))


def isolated(text: str) -> str:
    """Text that leaves the direction of its surroundings alone (UAX #9): without characters that override or embed a
    direction, and between isolates where some of it runs from right to left."""
    kinds = {unicodedata.bidirectional(character) for character in text}
    if not kinds & TURNING:
        return text
    kept = "".join(character for character in text if unicodedata.bidirectional(character) not in CONTROLS)
    return f"{ISOLATE}{kept}{END_ISOLATE}"

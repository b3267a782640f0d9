"""The templates' environment: where they are, and the filters that write figures for people."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from loadtest.report import capacity_words, parity_words, reasons, warning_words, wording

TEMPLATES = Path(__file__).parent / "templates"


def environment(*, autoescape: bool, finalize: Callable[[Any], Any] | None = None) -> Environment:
    """An environment in which a name that is not there is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=wording.number,
        count=wording.count,
        ms=wording.milliseconds,
        rate=wording.rate,
        images=wording.images,
        money=wording.money,
        plural=wording.plural,
        share=wording.share,
        share_of=wording.precise_share,
        interval=wording.interval,
        setting=wording.setting,
        scientific=wording.scientific,
        gibibytes=wording.gibibytes,
        protocol=wording.protocol,
        target_name=wording.target_name,
        engine=wording.engine,
        product=wording.product,
        target=wording.target,
        shorten=wording.shorten,
        reason=reasons.of_repetitions,
        errors=reasons.errors,
        open_end=reasons.open_end,
        bound=capacity_words.bound,
        found=capacity_words.found,
        warning=warning_words.warning,
        doubt=warning_words.doubt,
        parity_lead=parity_words.lead,
        left_out=parity_words.left_out,
        caveat=warning_words.caveat,
        tight=tight,
        when=when,
    )
    return made


def when(moment: float | str | None) -> str:
    """A Unix time as people write it."""
    if isinstance(moment, int | float):
        return datetime.fromtimestamp(moment, UTC).strftime("%d %B %Y, %H:%M UTC")
    return moment or wording.NOTHING


def tight(text: str) -> Markup:
    """Text as HTML in which a line's end never parts a figure from its unit, nor the two ends of an interval."""
    held = re.sub(r"(?<=\d) (?=(?:ms|s|%|GiB|×|10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹])(?:\W|$))|(?<=×) (?=10)", "\u00a0", text)
    # Not a word joiner, which would travel into whatever the sentence is pasted into.
    return Markup(re.sub(r"\d[\d.,]*–\d[\d.,]*", r'<span class="range">\g<0></span>', str(escape(held))))

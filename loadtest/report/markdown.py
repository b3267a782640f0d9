"""report.md: what the report says, for pull requests and terminals. Every value is escaped, as Markdown and as HTML."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

from jinja2 import Environment

from loadtest.report import samples, templating, wording
from loadtest.report.charts.decomposition import load, parts
from loadtest.report.content import Content
from loadtest.report.page import form_name

LONGEST = 1000  # characters of one value; our own sentences are shorter
SPECIAL = re.compile(r"[\\`*_\[\]|~]")


def render(content: Content) -> str:
    """A run's report.md."""
    figures = content.summary
    return document(
        "report.md.j2",
        content=content,
        summary=figures,
        targets={target.name: target for target in figures.targets},
        form_name=form_name,
        evidence=samples.evidence,
        parts=parts(figures),
        load=load,
        slo=figures.experiment.slo,
    )


def document(template: str, **values: Any) -> str:
    """A Markdown text from a template; no more than one empty line in a row."""
    text = _environment().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


class Code(str):
    """Text for an indented code block, where nothing is read as Markdown."""


def code(value: str) -> Code:
    """A value as one line of an indented code block."""
    return Code(" ".join(value.split()))


def escape(value: Any) -> Any:
    """Text that Markdown and HTML show as it is, on one line, without characters that turn its direction, and short."""
    if isinstance(value, Code) or not isinstance(value, str):
        return value
    escaped = visible(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\g<0>", escaped).replace("@", "&#64;")


def visible(text: str) -> str:
    """What is shown of a text: one line without control and formatting characters, cut where it is too long."""
    line = " ".join(text.split())
    shown = "".join(character for character in line if unicodedata.category(character) not in ("Cf", "Cc"))
    return wording.shorten(shown, LONGEST)


@cache
def _environment() -> Environment:
    # Markdown has rules of its own, which autoescaping does not know: `finalize` escapes every value.
    made = templating.environment(autoescape=False, finalize=escape)
    made.filters["code"] = code
    return made

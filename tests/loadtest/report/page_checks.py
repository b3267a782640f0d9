"""What must hold for every page of a report, whatever run it is of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from loadtest.analysis.records import Measurement, Percentiles
from tests import browser as chromium

# For each chart: its traces that have points, and the marks (lines, points, bars, fills) that Plotly drew for them.
CHARTS = """
return [...document.querySelectorAll(".plot")].map((plot) => ({
  id: plot.id,
  height: plot.getBoundingClientRect().height,
  words: document.getElementById(plot.getAttribute("aria-describedby")).textContent.trim().length,
  traces: (plot.data ?? []).filter((trace) => trace.y.some((value) => value !== null && value !== 0)).length,
  marks: [...plot.querySelectorAll(".trace path, .points path")].filter((path) => path.getAttribute("d")).length,
}));
"""
FIGURES = """
const figure = (cell) => [cell.dataset.key, [cell.value, cell.textContent]];
return [...document.querySelectorAll("[data-measurement]")].map((row) => ({
  ...Object.fromEntries([...row.querySelectorAll("data[data-key]")].map(figure)),
  valid: row.lastElementChild.textContent.trim(),
}));
"""
PARTED = """
return [...document.querySelectorAll(".range")].filter((item) => item.getClientRects().length > 1)
  .map((item) => item.textContent);
"""
WIDTH = "return document.documentElement.scrollWidth"


def as_read(html: str) -> str:
    """A page's source with its sentences as they are read: without what keeps figures together at a line's end."""
    return re.sub(r'<span class="range">(.*?)</span>', r"\1", html).replace("\N{NO-BREAK SPACE}", " ")


def assert_sound(browser: chromium.Browser, page: Path) -> list[dict[str, Any]]:
    """The page fits a phone (dark) and a desk (light), draws all charts, loads nothing, logs nothing; its charts."""
    chromium.forget(browser)
    chromium.view(browser, page, 390, "dark")
    assert browser.execute_script(WIDTH) <= 390
    assert browser.execute_script(PARTED) == []
    chromium.resize(browser, 1280, "light")
    chromium.until(browser, 'return document.querySelector("main").clientWidth > 900')
    assert browser.execute_script(WIDTH) <= 1280
    asked, logged = set(chromium.requests(browser)), browser.get_log("browser")
    assert asked == {page.as_uri()}, asked
    assert logged == [], logged
    charts = browser.execute_script(CHARTS)
    for chart in charts:
        assert chart["traces"] > 0, chart
        assert chart["marks"] >= chart["traces"], chart
        assert chart["height"] > 100, chart
        assert chart["words"] > 40, chart
    return charts


def assert_shows(browser: chromium.Browser, measurements: Sequence[Measurement]) -> None:
    """The table of measurements shows these, to the digit for machines and rounded for people."""
    shown = browser.execute_script(FIGURES)
    assert len(shown) == len(measurements)
    for cells, item in zip(shown, measurements, strict=True):
        values = {name: item.latency_ms[name] for name in Percentiles.__struct_fields__ if name in cells}
        rates = {name: getattr(item, name) for name in ("achieved_rate", "goodput", "error_ratio", "offered_rate")}
        for name, value in {**values, **rates}.items():
            exact, text = cells[name]
            assert float(exact) == value, name
            people = float(text.replace(",", "").rstrip("/s %").replace("–", "nan"))
            assert people == pytest.approx(value * (100 if name == "error_ratio" else 1), rel=0.02, abs=0.005), name
        assert cells["valid"] == ("yes" if item.valid else "no")

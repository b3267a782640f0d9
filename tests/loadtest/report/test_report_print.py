"""The page on paper: printed by a real browser in both common sizes, read back from the PDF."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from loadtest import report
from loadtest.analysis import summary
from loadtest.report import against
from tests import browser as chromium
from tests.components import require
from tests.loadtest.report.test_report_browser import BOTH, RUNS
from tests.loadtest.runs.build import THREE, decompose, write_run

PAPERS = {"A4": (595.0, 842.0), "Letter": (612.0, 792.0)}  # points
MARGIN = 12 / 25.4 * 72  # style.css leaves 12 mm at the sides
XHTML = "{http://www.w3.org/1999/xhtml}"
LADDER = {"grpc": [200.0, 400.0, 600.0, 800.0], "rest": [150.0, 300.0, 450.0, 600.0]}
WORST = {**RUNS["hostile names"], "prometheus": True}
CHARTS = """
return [...document.querySelectorAll("figure.chart")].map((figure) => {
  const plot = figure.querySelector(".plot");
  const axes = Object.keys(plot.layout).filter((name) => name.startsWith("xaxis"));
  const titles = axes.map((name) => plot.layout[name].title?.text);
  return {
    title: figure.querySelector("h3").textContent,
    caption: figure.querySelector("figcaption").textContent,
    axis: titles.filter(Boolean).at(-1),
  };
});
"""
# What people read in each cell: what is hidden on paper, or from eyes, is not there.
CELLS = """
return [...document.querySelectorAll("main td, main th")].filter((cell) => cell.checkVisibility()).map((cell) => {
  const unseen = [...cell.querySelectorAll(".visually-hidden")].map((element) => element.innerText);
  return [...unseen].reduce((text, hidden) => text.replace(hidden, ""), cell.innerText);
});
"""


@dataclass(frozen=True)
class Box:
    """A word's edges in points from the page's upper left corner."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Sheet:
    """A printed page: its words' boxes, and its text in the order in which it was drawn, without blanks."""

    boxes: list[Box]
    text: str


@dataclass(frozen=True)
class Printed:
    """What came out of the printer, and what the page holds: its charts, and the texts of all tables' cells."""

    paper: tuple[float, float]
    sheets: list[Sheet]
    charts: list[dict[str, str]]
    cells: list[str]

    def drawn(self, sheet: Sheet, part: str, text: str) -> int:
        """How many charts whose ``part`` is this text begin on a page: their titles there."""
        titles = {chart["title"] for chart in self.charts if chart[part] == text}
        return sum(sheet.text.count(squeezed(title)) for title in titles)


def squeezed(text: str) -> str:
    """Text without what a line's end may take away or add, and without what runs from right to left: a PDF has that in
    the order in which it is seen, and in other characters."""
    return re.sub(r"[\s\u00ad\u202a-\u202e\u2066-\u2069\u0590-\u08ff\ufb1d-\ufeff]", "", text)


def read(pdf: Path) -> list[Sheet]:
    boxes = subprocess.run(["pdftotext", "-bbox", pdf, "-"], capture_output=True, text=True, check=True).stdout
    texts = subprocess.run(["pdftotext", "-raw", pdf, "-"], capture_output=True, text=True, check=True).stdout
    pages = ElementTree.fromstring(re.sub(r"[\x00-\x08\x0b-\x1f]", "", boxes)).iter(f"{XHTML}page")
    return [
        Sheet(
            [Box(*(float(word.attrib[edge]) for edge in ("xMin", "yMin", "xMax", "yMax"))) for word in page],
            squeezed(text),
        )
        for page, text in zip(pages, texts.split("\f"), strict=False)
    ]


def printed(browser: chromium.Browser, page: Path, size: str) -> Printed:
    require("pdftotext")
    pdf = chromium.print_pdf(browser, page, PAPERS[size], page.with_suffix(f".{size}.pdf"))
    charts = browser.execute_script(CHARTS)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    cells = browser.execute_script(CELLS)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    return Printed(PAPERS[size], read(pdf), charts, cells)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The report of a run like the default one: two servers, two protocols, four rates, two starts of each."""
    run = write_run(tmp_path_factory.mktemp("runs") / "run", BOTH, rates=LADDER, duration_s=3, price_per_hour=0.4)
    (run / summary.FILE).write_bytes(msgspec.json.encode(decompose(summary.build(run))))
    return report.write(run)


@pytest.fixture(scope="module", params=PAPERS)
def sheets(browser, page, request) -> Printed:
    return printed(browser, page, request.param)


def assert_nothing_is_cut(done: Printed) -> None:
    """Everything stands between the margins, and every table's cell is there to its last letter."""
    width, height = done.paper
    for number, sheet in enumerate(done.sheets, start=1):
        beyond = [
            box
            for box in sheet.boxes
            if box.left < MARGIN - 1 or box.right > width - MARGIN + 1 or box.top < 0 or box.bottom > height
        ]
        assert not beyond, (number, beyond)
    text = "".join(sheet.text for sheet in done.sheets)
    missing = [cell for cell in done.cells if squeezed(cell) not in text]
    assert len(done.cells) > 100
    assert not missing, missing


def assert_no_chart_is_split(done: Printed) -> None:
    """On the page of each chart's title stand its caption and its axis' as well."""
    for part in ("caption", "axis"):
        for text in {chart[part] for chart in done.charts}:
            begun = [done.drawn(sheet, part, text) for sheet in done.sheets]
            for sheet, expected in zip(done.sheets, begun, strict=True):
                assert sheet.text.count(squeezed(text)) >= expected, text
            assert sum(begun) == sum(chart[part] == text for chart in done.charts), text


def test_nothing_is_cut_at_an_edge(sheets):
    assert_nothing_is_cut(sheets)


def test_what_only_a_screen_can_do_is_not_printed(sheets):
    text = "".join(sheet.text for sheet in sheets.sheets)
    for words in ("Any figure tells where it comes from", "trials of this run", "as a table", "Skip to the verdict"):
        assert squeezed(words) not in text, words


def test_no_chart_is_split_over_two_pages(sheets):
    assert len(sheets.charts) == 15  # ratios; of each protocol latency, percentiles, parts; 8 time lines
    assert_no_chart_is_split(sheets)


def test_the_verdict_and_three_charts_stand_on_the_first_two_pages_and_the_appendix_last(sheets):
    assert squeezed("Over gRPC at 600/s TensorFlow Serving answered 99 % of requests within") in sheets.sheets[0].text
    first = squeezed(sheets.sheets[0].text + sheets.sheets[1].text)
    assert sum(squeezed(chart["title"]) in first for chart in sheets.charts) >= 3
    text = "".join(sheet.text for sheet in sheets.sheets)
    starts = (
        "itholdsundertheseconditions",
        "wherethetimegoes",
        "isitthesamemodel?",
        "costandsizing",
        "whatelsetoweigh",
    )
    appendix = ("secondbysecond", "everymeasurement", "oneprofile,twoservers", "howitwasmeasured", "repeatit")
    places = [text.lower().index(heading) for heading in (*starts, *appendix)]
    assert places == sorted(places)


def test_it_takes_few_pages_and_leaves_no_large_gap(sheets):
    assert len(sheets.sheets) <= 14
    height = sheets.paper[1]
    for number, sheet in enumerate(sheets.sheets[:-1], start=1):
        edges = sorted({round(box.top) for box in sheet.boxes} | {round(height - MARGIN)})
        gap = max(below - above for above, below in pairwise(edges))
        assert gap < 0.3 * height, (number, gap)


def test_figures_reach_from_margin_to_margin_and_are_large_enough_to_read(sheets):
    """A browser shrinks all of a page that is too wide for the paper: then nothing would reach the right margin."""
    for sheet in sheets.sheets[:2]:
        assert max(box.right for box in sheet.boxes) > sheets.paper[0] - MARGIN - 30
    heights = sorted(box.bottom - box.top for sheet in sheets.sheets for box in sheet.boxes)
    assert heights[0] > 4.5
    assert heights[len(heights) // 2] > 7


@pytest.mark.parametrize("kind", ["hostile names", "three targets"])
def test_long_names_and_many_targets_fit_as_well(browser, tmp_path, kind):
    options = dict({"hostile names": WORST, "three targets": {"servers": THREE, "rates": LADDER}}[kind])
    run = write_run(tmp_path / "run", options.pop("servers"), duration_s=2, **options)
    done = printed(browser, report.write(run), "A4")
    assert_nothing_is_cut(done)


def test_two_runs_compared_fit_on_paper(browser, tmp_path):
    before, after = (write_run(tmp_path / name, BOTH, rates=LADDER, duration_s=2) for name in ("before", "after"))
    done = printed(browser, against.write(after, before)[0], "Letter")
    assert_nothing_is_cut(done)
    assert_no_chart_is_split(done)
    assert len(done.sheets) <= 6

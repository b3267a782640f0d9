"""The page in a real browser: drawn, agreeing with summary.json, silent on the network, fit for a phone."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from loadtest import report
from loadtest.analysis import summary
from loadtest.analysis.records import RunComparison
from loadtest.experiment.questions import Metric
from loadtest.report import against, wording
from serving.engines.engine import Knob
from tests import browser as chromium
from tests.loadtest.report.page_checks import assert_shows, assert_sound
from tests.loadtest.runs.build import (
    EMBEDDED,
    SAME,
    TF_SERVING,
    THREE,
    TORCHSERVE,
    SimulatedServer,
    decompose,
    write_run,
)

RATES = {"grpc": [250.0, 500.0], "rest": [200.0, 400.0]}
HOSTILE = '"><script>window.hacked=1</script><img src=x onerror="window.hacked=2">' + "W" * 300 + "\u202eمرحبا بالعالم"


def slips(target: str, protocol: str, rate: float, repetition: int) -> dict[str, Any]:
    return {"schedule_slip_ms": {"p50": 0.3, "p99": 7.0, "max": 20.0}} if rate == 500.0 else {}


BOTH = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
RUNS: dict[str, dict[str, Any]] = {
    "clear winner": {"servers": BOTH, "price_per_hour": 0.4},
    "no difference": {"servers": {"pytorch": TORCHSERVE, "tensorflow": SAME}, "seed": 4},
    "invalid generator": {"servers": BOTH, "spoil": slips},
    "embedded engine": {"servers": {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}},
    "failed target": {"servers": {"pytorch": TORCHSERVE}, "asked": ["pytorch", "tensorflow"]},
    "one target only": {"servers": {"pytorch": TORCHSERVE}},
    "three targets": {"servers": THREE},
    "no Prometheus": {"servers": BOTH, "prometheus": False, "rates": {"grpc": [300.0]}},
    "hostile names": {
        "servers": {
            "pytorch": SimulatedServer(
                engine=HOSTILE, version=HOSTILE, knobs=(Knob(HOSTILE, HOSTILE, HOSTILE, HOSTILE, note=HOSTILE),)
            ),
            HOSTILE: TF_SERVING,
        },
        "rates": {"grpc": [200.0, 300.0]},
        "model": HOSTILE,
        "dataset": HOSTILE,
        "classes": [HOSTILE] * 10,
        "environment": {"cpu_model": HOSTILE, "order": [HOSTILE], "warnings": [HOSTILE]},
    },
}
STARTS = 3
SAYS = {
    "clear winner": "TensorFlow Serving answered 99 % of requests within",
    "no difference": "No difference shown in p99 latency: this run could have found a ratio of",
    "invalid generator": "2 of 8 measurements not valid",
    "embedded engine": "the embedded stand-in for TensorFlow Serving answered 99 % of requests within",
    "failed target": "TensorFlow not measured",
    "one target only": "TorchServe alone was measured.",
    "three targets": "TensorFlow Serving had the lowest p99 latency over gRPC",
    "no Prometheus": "No server-side metrics",
}


@pytest.mark.parametrize("kind", RUNS)
def test_the_report_in_a_browser(browser, tmp_path, kind):
    options = {"rates": RATES, "duration_s": 2, "repetitions": STARTS, **RUNS[kind]}
    run = write_run(tmp_path / "run", options.pop("servers"), **options)
    figures = summary.build(run)
    if options.get("prometheus", True):
        figures = decompose(figures)
    (run / summary.FILE).write_bytes(msgspec.json.encode(figures))
    charts = [chart["id"] for chart in assert_sound(browser, report.write(run))]

    assert browser.execute_script("return window.hacked") is None
    sentences = browser.execute_script("return document.querySelector('#verdict').textContent")
    assert "\u202e" not in sentences.split("Read with this in mind")[0]  # it would mirror the figures behind a name
    assert sum(name.startswith("latency-") for name in charts) == len(options["rates"])
    assert sum(name.startswith("percentiles-") for name in charts) == len(options["rates"])
    blocks = len(RUNS[kind]["servers"]) * len(options["rates"]) * STARTS
    assert sum(name.startswith("timeline-") for name in charts) == blocks
    assert ("decomposition-grpc" in charts) == options.get("prometheus", True)
    assert_shows(browser, figures.measurements)
    assert SAYS.get(kind, "") in browser.find_element(By.TAG_NAME, "main").text.replace("\N{NO-BREAK SPACE}", " ")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".sample img")) == 10
    assert browser.execute_script(
        "return [...document.querySelectorAll('.sample img')].every((image) => image.complete && image.naturalWidth)"
    )


def test_a_search_for_capacity_is_told_and_drawn(browser, tmp_path):
    run = write_run(tmp_path / "run", BOTH, rates={"grpc": [250.0]}, searches=4, duration_s=2)
    page = report.write(run)
    assert_sound(browser, page)
    figures = summary.read(run)
    # The rates that searches tried are counted, and stand beside the capacities instead of in the table.
    assert_shows(browser, [item for item in figures.measurements if item.scenario != "capacity"])
    text = browser.find_element(By.TAG_NAME, "main").text.replace("\N{NO-BREAK SPACE}", " ")
    tried = sum(item.scenario == "capacity" for item in figures.measurements)
    assert f"The {tried} rates that the capacity searches tried are left out here" in text
    verdict = next(item for item in figures.verdicts if item.metric is Metric.CAPACITY)
    factor = wording.times(1 / (verdict.ratio or 1.0))[0]
    assert f"TensorFlow Serving handled {factor} times as many requests per second as TorchServe within 50 ms" in text
    assert text.count("4 starts, some ") == 4  # of two targets, in the table and question by question
    stars = [trace for trace in browser.execute_script(STARS) if trace["marker"]["symbol"].startswith("star")]
    assert sorted(trace["x"][0] for trace in stars) == sorted(item.max_rate or 0.0 for item in figures.capacity)
    assert len({trace["marker"]["symbol"] for trace in stars}) == 2  # told apart without colour


STARS = "return document.getElementById('latency-grpc').data.filter((trace) => trace.mode === 'markers')"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The report of a run with a clear winner and a price."""
    run = tmp_path_factory.mktemp("runs") / "run"
    return report.write(write_run(run, BOTH, rates=RATES, duration_s=2, price_per_hour=0.4))


COLUMN = "return [...document.querySelectorAll('#all-measurements [data-key=p99]')].map((cell) => Number(cell.value))"


def test_the_table_of_measurements_is_sorted_by_keyboard(browser, page):
    chromium.view(browser, page, 1280)
    heading = browser.find_element(By.XPATH, "//table[@id='all-measurements']//th[contains(., 'p99, ms')]")
    button = heading.find_element(By.TAG_NAME, "button")
    unsorted = browser.execute_script(COLUMN)
    for key, order, expected in (
        (Keys.ENTER, "ascending", sorted(unsorted)),
        (Keys.SPACE, "descending", sorted(unsorted, reverse=True)),
    ):
        button.send_keys(key)
        assert heading.get_attribute("aria-sort") == order
        assert browser.execute_script(COLUMN) == expected
    assert unsorted != sorted(unsorted)


def test_a_charts_figures_are_read_by_keyboard(browser, page):
    chromium.view(browser, page, 1280)
    table = browser.find_element(By.CSS_SELECTOR, "[data-chart='latency-grpc']")
    assert not table.is_displayed()
    browser.execute_script("document.querySelector('[data-chart=latency-grpc]').closest('details').firstChild.focus()")
    summary_of = browser.switch_to.active_element
    assert summary_of.get_attribute("aria-label") == "Latency versus offered rate, gRPC as a table"
    summary_of.send_keys(Keys.ENTER)
    item = summary.read(page.parent).measurements[0]
    assert f"PyTorch 250/s {item.latency_ms.p50:.2f} {item.latency_ms.p99:.2f}" in table.text


def test_a_reader_can_put_in_a_price_and_a_peak(browser, page):
    chromium.view(browser, page, 1280)
    capacity = summary.read(page.parent).capacity[0].max_rate
    assert capacity
    price, peak = (browser.find_element(By.ID, name) for name in ("price", "peak"))
    price.clear()
    price.send_keys("3.6")
    peak.send_keys("2000")
    row = browser.find_element(By.CSS_SELECTOR, "[data-sizing='0']")
    assert row.find_element(By.CSS_SELECTOR, "[data-replicas]").text == str(-(-2000 // int(capacity)) + 1)
    cost = float(row.find_element(By.CSS_SELECTOR, ".cost-cell").text.removesuffix(" EUR"))
    assert cost == pytest.approx(3.6 / (capacity * 3600) * 1e6, rel=0.005)


def test_dark_and_light_are_drawn_in_their_own_colours(browser, page):
    looks = {}
    for scheme in ("light", "dark"):
        chromium.view(browser, page, 800, scheme)
        looks[scheme] = browser.execute_script(COLOURS)
    assert all(looks["light"][part] != looks["dark"][part] for part in ("page", "ink", "line"))
    chromium.resize(browser, 800, "light")  # switched while the page is open
    WebDriverWait(browser, 10, poll_frequency=0.05).until(
        lambda driver: driver.execute_script(COLOURS) == looks["light"]
    )


COLOURS = """
const style = (element) => getComputedStyle(element);
const line = style(document.querySelector("#latency-grpc .js-line")).stroke;
return { page: style(document.body).backgroundColor, ink: style(document.body).color, line };
"""


def test_it_prints_every_detail_in_light_colours_and_inside_the_paper(browser, page):
    chromium.view(browser, page, 1280, "dark")
    browser.execute_script(
        """
        window.printed = {};
        addEventListener("beforeprint", () => {
          window.printed.closed = document.querySelectorAll("details:not([open])").length;
          window.printed.ink = getComputedStyle(document.body).color;
        });
        addEventListener("afterprint", () => { window.printed.ink_after = getComputedStyle(document.body).color; });
        """
    )
    answer = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
    assert base64.b64decode(answer["data"]).startswith(b"%PDF-")
    printed = chromium.until(browser, "return window.printed.ink_after && window.printed")
    assert printed["closed"] == 0
    assert printed["ink"] == "rgb(22, 32, 43)"
    assert printed["ink_after"] != printed["ink"]


def test_two_runs_compared_in_a_browser(browser, tmp_path):
    rates = {"grpc": [250.0, 500.0]}
    faster = {**BOTH, "pytorch": replace(TORCHSERVE, base_ms=2.0, capacity=1200)}
    before = write_run(tmp_path / "before", BOTH, rates=rates, duration_s=3)
    after = write_run(tmp_path / "after", faster, rates=rates, duration_s=3, seed=2)
    written, _ = against.write(after, before)
    charts = [chart["id"] for chart in assert_sound(browser, written)]
    assert charts == ["ratios-0", "latency-0-grpc", "ratios-1", "latency-1-grpc"]
    values = msgspec.json.decode(written.with_suffix(".json").read_bytes(), type=RunComparison)
    assert_shows(browser, [item for one in values.comparisons.values() for item in one.measurements])
    headlines = [item.text for item in browser.find_elements(By.CSS_SELECTOR, "[data-headline]")]
    assert "Over gRPC at 500/s this run answered 99 % of requests within" in headlines[0].replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert "No difference shown in p99 latency" in headlines[1]

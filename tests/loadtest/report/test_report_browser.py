"""The page in a real browser: drawn, agreeing with summary.json, silent on the network, fit for a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from loadtest import report
from loadtest.analysis import summary
from tests.components import require
from tests.loadtest.runs.build import EMBEDDED, SAME, TF_SERVING, TORCHSERVE, Server, write_run

RATES = {"grpc": [250.0, 500.0], "rest": [200.0, 400.0]}
HOSTILE = '"><script>window.hacked=1</script><img src=x onerror="window.hacked=2">' + "W" * 300 + "\u202eمرحبا بالعالم"


def slips(target: str, protocol: str, rate: float, repetition: int) -> dict[str, Any]:
    return {"schedule_slip_ms": {"p50": 0.3, "p99": 7.0, "max": 20.0}} if rate == 500.0 else {}


BOTH = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
RUNS: dict[str, dict[str, Any]] = {
    "clear winner": {"servers": BOTH},
    "no difference": {"servers": {"pytorch": TORCHSERVE, "tensorflow": SAME}, "seed": 4},
    "invalid generator": {"servers": BOTH, "spoil": slips},
    "embedded engine": {"servers": {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}},
    "failed target": {"servers": {"pytorch": TORCHSERVE}, "asked": ["pytorch", "tensorflow"]},
    "one target only": {"servers": {"pytorch": TORCHSERVE}},
    "no Prometheus": {"servers": BOTH, "prometheus": False, "rates": {"grpc": [300.0]}},
    "hostile names": {
        "servers": {
            "pytorch": Server(engine=HOSTILE, version=HOSTILE, settings={HOSTILE: HOSTILE}, notes=(HOSTILE,)),
            HOSTILE: TF_SERVING,
        },
        "rates": {"grpc": [200.0, 300.0]},
        "model": HOSTILE,
        "dataset": HOSTILE,
        "environment": {"cpu_model": HOSTILE, "order": [HOSTILE], "warnings": [HOSTILE]},
    },
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    require("chromium", "chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


def view(browser: webdriver.Chrome, page: Path, width: int, scheme: str) -> None:
    """Open the page at a width, in a colour scheme, and wait until its charts are drawn."""
    resize(browser, width, scheme)
    browser.get(page.as_uri())
    WebDriverWait(browser, 30, poll_frequency=0.05).until(
        lambda driver: driver.execute_script("return document.documentElement.dataset.drawn")
    )


def resize(browser: webdriver.Chrome, width: int, scheme: str) -> None:
    """Set the window's width and the preferred colour scheme."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def requests(browser: webdriver.Chrome) -> list[str]:
    """Addresses that pages asked for since the last call, data: URLs left out."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in sent if not url.startswith("data:")]


@pytest.mark.parametrize("kind", RUNS)
def test_the_report_in_a_browser(browser, tmp_path, kind):
    options = {"rates": RATES, "duration_s": 2, **RUNS[kind]}
    run = write_run(tmp_path / "run", options.pop("servers"), **options)
    figures = summary.write(run)
    page = report.write(run)
    requests(browser)
    browser.get_log("browser")

    view(browser, page, 390, "dark")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    resize(browser, 1280, "light")
    WebDriverWait(browser, 10, poll_frequency=0.05).until(lambda driver: driver.execute_script(WIDE))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1280

    assert set(requests(browser)) == {page.as_uri()}
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hacked") is None
    drawn = browser.execute_script(DRAWN)
    latency = [chart for chart in drawn if chart["id"].startswith("latency-")]
    assert len(latency) == len(options["rates"])
    for chart in drawn:
        assert chart["marks"] >= chart["traces"] > 0, chart
        assert chart["height"] > 100
    shown = browser.execute_script(FIGURES)
    assert len(shown) == len(figures["measurements"])
    for cells, item in zip(shown, figures["measurements"], strict=True):
        for name, value in {
            **item["latency_ms"],
            "achieved_rate": item["achieved_rate"],
            "goodput": item["goodput"],
            "error_ratio": item["error_ratio"],
            "offered_rate": item["offered_rate"],
        }.items():
            exact, text = cells[name]
            assert float(exact) == value, name
            people = float(text.replace(",", "").rstrip("/s %").replace("–", "nan"))
            assert people == pytest.approx(value * (100 if name == "error_ratio" else 1), rel=0.02, abs=0.005), name
        assert cells["valid"] == ("yes" if item["valid"] else "no")


def test_dark_and_light_are_drawn_in_their_own_colours(browser, tmp_path):
    page = report.write(write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [100.0]}, duration_s=2))
    looks = {}
    for scheme in ("light", "dark"):
        view(browser, page, 800, scheme)
        looks[scheme] = browser.execute_script(COLOURS)
    assert all(looks["light"][part] != looks["dark"][part] for part in ("page", "ink", "line"))
    resize(browser, 800, "light")  # switched while the page is open
    WebDriverWait(browser, 10, poll_frequency=0.05).until(
        lambda driver: driver.execute_script(COLOURS) == looks["light"]
    )


WIDE = (
    'return document.querySelector("#all-measurements").scrollWidth > 700 && document.documentElement.scrollWidth > 700'
)
# For each chart: its traces that have points, and the marks (lines, points, fills) that Plotly drew for them.
DRAWN = """
return [...document.querySelectorAll(".plot")].map((plot) => ({
  id: plot.id,
  height: plot.getBoundingClientRect().height,
  traces: plot.data.filter((trace) => trace.x.length > 0).length,
  marks: [...plot.querySelectorAll(".trace path")].filter((path) => path.getAttribute("d")).length,
}));
"""
FIGURES = """
const figure = (cell) => [cell.dataset.key, [cell.value, cell.textContent]];
return [...document.querySelectorAll("[data-measurement]")].map((row) => ({
  ...Object.fromEntries([...row.querySelectorAll("data[data-key]")].map(figure)),
  valid: row.lastElementChild.textContent.trim(),
}));
"""
COLOURS = """
const trace = document.querySelector("#latency-grpc .js-line") || document.querySelector("#latency-grpc .point");
return {
  page: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.body).color,
  line: getComputedStyle(trace).stroke + getComputedStyle(trace).fill,
};
"""

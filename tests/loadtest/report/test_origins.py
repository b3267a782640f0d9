"""Where each figure comes from: the right trials, shown to the pointer, the keyboard, a tap, and without a script."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from loadtest import report
from loadtest.analysis import summary
from loadtest.experiment.questions import Metric
from loadtest.report import against
from loadtest.report.origins import Origins, trials_of_verdict
from tests import browser as chromium
from tests.loadtest.report.test_report_browser import BOTH, RATES
from tests.loadtest.runs.build import write_run

OPEN = "return document.querySelector('.origin:popover-open')?.innerText ?? ''"
UNTOLD = """
const figures = [...document.querySelectorAll("main data")];
return figures.filter((figure) => !figure.closest(".told")).map((figure) => figure.outerHTML);
"""
PATHS = """
return [...document.querySelectorAll(".told")].map((button) => {
  const popover = document.getElementById(button.getAttribute("popovertarget"));
  const says = document.getElementById(button.getAttribute("aria-describedby"));
  return popover.contains(says) ? [...popover.querySelectorAll("li")].map((item) => item.textContent) : [];
});
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "a run"
    return report.write(write_run(run, BOTH, rates=RATES, duration_s=2, price_per_hour=0.4))


def told(page: Path, paths: Sequence[str]) -> list[tuple[Any, ...]]:
    """What trials are of, read from where the report says that they are."""
    saved = [json.loads((page.parent / Path(path).relative_to("results/a run")).read_text()) for path in paths]
    return sorted((one["target"], one["protocol"], one["offered_rate"], one["repetition"]) for one in saved)


def test_a_figure_names_its_own_trials_and_no_others(page):
    figures = summary.read(page.parent)
    origins = Origins("a run", figures)
    item = next(item for item in figures.measurements if (item.target, item.offered_rate) == ("tensorflow", 500.0))
    found = origins.measurement(item)
    assert found
    assert told(page, found.paths) == [("tensorflow", "grpc", 500.0, 1), ("tensorflow", "grpc", 500.0, 2)]
    assert shlex.split(found.show) == ["cat", found.paths[0]]
    assert shlex.split(found.rebuild) == ["make", "report", "RUN=results/a run"]
    assert origins.load("tensorflow", "grpc", "ladder", 500.0) is found  # one origin, one popover
    capacity = origins.capacity("tensorflow", "grpc")
    assert capacity
    assert told(page, capacity.paths) == [("tensorflow", "grpc", rate, n) for rate in RATES["grpc"] for n in (1, 2)]
    assert origins.load("tensorflow", "grpc", "soak") is None


def test_a_verdict_names_the_trials_of_both_targets_at_its_rate(page):
    figures = summary.read(page.parent)
    verdict = next(item for item in figures.verdicts if item.metric is Metric.P99 and item.protocol == "rest")
    found = [f"results/a run/trials/{name}/trial.json" for name in trials_of_verdict(figures, verdict)]
    rate = verdict.offered_rate
    assert told(page, found) == [(target, "rest", rate, n) for target in ("pytorch", "tensorflow") for n in (1, 2)]


def test_every_figure_of_the_page_leads_to_files_that_are_there(browser, page):
    chromium.view(browser, page, 1280)
    assert browser.execute_script(UNTOLD) == []
    origins = browser.execute_script(PATHS)
    assert len(origins) > 150
    for paths in origins:
        assert paths
        for path in paths:
            assert (page.parent / Path(path).relative_to("results/a run")).is_file(), path


def test_every_figure_of_two_runs_leads_to_its_own_run(browser, tmp_path):
    rates = {"grpc": [250.0, 500.0]}
    before, after = (write_run(tmp_path / name, BOTH, rates=rates, duration_s=2) for name in ("before", "after"))
    written, _ = against.write(after, before)
    chromium.view(browser, written, 1280)
    assert browser.execute_script(UNTOLD) == []
    found = {path for paths in browser.execute_script(PATHS) for path in paths}
    assert {path.split("/")[1] for path in found} == {"before", "after"}
    assert all((tmp_path / Path(path).relative_to("results")).is_file() for path in found)


def test_the_pointer_shows_an_origin_and_takes_it_away(browser, page):
    chromium.view(browser, page, 1280)
    figure = browser.find_element(By.CSS_SELECTOR, "#all-measurements [data-measurement='1'] [data-key='p99']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    assert browser.execute_script(OPEN) == ""
    ActionChains(browser).move_to_element(figure).perform()
    shown = chromium.until(browser, OPEN)
    trial = summary.read(page.parent).measurements[1].trials[0]
    assert f"results/a run/trials/{trial}/trial.json" in shown
    assert "make report RUN='results/a run'" in shown
    ActionChains(browser).move_to_element(browser.find_element(By.ID, "measurements-heading")).perform()
    chromium.until(browser, f"return (() => {{ {OPEN} }})() === ''")


def test_the_keyboard_goes_from_figure_to_figure(browser, page):
    chromium.view(browser, page, 1280)
    stops = (
        "return [...document.querySelectorAll('#all-measurements .told')].filter((one) => one.tabIndex === 0).length"
    )
    assert browser.execute_script(stops) == 1  # a table is one stop, not a hundred
    browser.execute_script("document.querySelector('#all-measurements thead tr th:last-child button').focus()")

    def press(key: str) -> str:
        ActionChains(browser).send_keys(key).perform()
        return browser.execute_script(FOCUSED)

    trials = [item.trials[0] for item in summary.read(page.parent).measurements]
    assert press(Keys.TAB) == "0 offered_rate"
    assert trials[0] in browser.execute_script(OPEN)
    assert press(Keys.ARROW_RIGHT) == "0 achieved_rate"
    assert press(Keys.ARROW_DOWN) == "1 achieved_rate"
    assert trials[1] in browser.execute_script(OPEN)
    assert press(Keys.ARROW_UP) == "0 achieved_rate"
    assert press(Keys.ARROW_UP) == "0 achieved_rate"  # the first row
    assert press(Keys.ESCAPE) == "0 achieved_rate"
    assert browser.execute_script(OPEN) == ""
    assert browser.execute_script(stops) == 1


FOCUSED = """
const figure = document.activeElement;
return `${figure.closest("[data-measurement]")?.dataset.measurement} ${figure.querySelector("data")?.dataset.key}`;
"""


def test_a_tap_shows_an_origin_without_any_script(browser, page):
    chromium.resize(browser, 390, "light")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
        figure = browser.find_element(By.CSS_SELECTOR, "#all-measurements [data-measurement='0'] [data-key='sent']")
        figure.click()
        shown = browser.find_element(By.CSS_SELECTOR, ".origin:popover-open")
        assert summary.read(page.parent).measurements[0].trials[0] in shown.text
        assert shown.rect["x"] >= 0
        assert shown.rect["x"] + shown.rect["width"] <= 390
        assert shown.rect["width"] > 250  # room for a path
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

"""A real Chromium without a window: opening pages, reading what was drawn, and what was asked of the network."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

Browser = webdriver.Chrome
DRAWN = "return document.documentElement.dataset.drawn"


def start(profile: Path) -> Browser:
    """Debian's Chromium with a fresh profile, which asks nothing of any network by itself."""
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
        f"--user-data-dir={profile}",
        "about:blank",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


def view(browser: Browser, page: Path, width: int, scheme: str = "light") -> None:
    """Open a page at a width, in a colour scheme, and wait until its charts are drawn."""
    resize(browser, width, scheme)
    browser.get(page.as_uri())
    until(browser, DRAWN)


def until(browser: Browser, script: str) -> Any:
    """Wait until a script returns something true, and return that."""
    return WebDriverWait(browser, 30, poll_frequency=0.05).until(lambda driver: driver.execute_script(script))


def resize(browser: Browser, width: int, scheme: str) -> None:
    """Set the window's width and the preferred colour scheme."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def print_pdf(browser: Browser, page: Path, paper: tuple[float, float], pdf: Path) -> Path:
    """Open a page on a desk's screen and print it on paper so many points wide and high; the PDF."""
    view(browser, page, 1280)
    options = {"printBackground": True, "paperWidth": paper[0] / 72, "paperHeight": paper[1] / 72}
    pdf.write_bytes(base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", options)["data"]))
    return pdf


def forget(browser: Browser) -> None:
    """Leave whatever page is open (at first, the browser's own) and drop what was logged so far."""
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get_log("browser")


def requests(browser: Browser) -> list[str]:
    """Addresses that pages asked for since the last call, data: URLs left out."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in sent if not url.startswith("data:")]

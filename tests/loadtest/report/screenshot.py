"""Takes the README's picture of a report: `make screenshot RUN=FOLDER` writes docs/report.png."""

from __future__ import annotations

import argparse
import base64
import io
import tempfile
from pathlib import Path

from PIL import Image

from loadtest import report
from loadtest.experiment import run_folder
from tests import browser as chromium

WIDTH = 1200
# The picture ends where this part of the page does.
LAST = "#verdict .columns"


def main() -> None:
    """Build the report of a run again, and write a picture of its verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="the run's folder")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    options = parser.parse_args()
    page = report.write(run_folder.resolve(options.run))
    with tempfile.TemporaryDirectory() as profile:
        browser = chromium.start(Path(profile))
        try:
            chromium.view(browser, page, WIDTH, options.scheme)
            height = browser.execute_script(
                f"return document.querySelector('{LAST}').getBoundingClientRect().bottom + scrollY + 24"
            )
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1.5}
            shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        finally:
            browser.quit()
    picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    picture.quantize(128).save(options.picture, optimize=True)  # a fifth of the size, and looks the same
    print(f"{options.picture}: {WIDTH} x {height:.0f} px of {page}")


if __name__ == "__main__":
    main()

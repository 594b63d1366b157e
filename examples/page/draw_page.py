# SPDX-License-Identifier: Apache-2.0
"""Picture of the page of `musiq serve` for the documents, with a sample picture, drawn in Chromium.

python examples/page/draw_page.py --output docs/figures/serve.png

It needs the extra `web`, and Debian's packages chromium and chromium-driver.
"""

import argparse
import io
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

from musiq_hf.app import ServeSettings, start_server
from musiq_hf.common.arguments import parse_arguments, run_command
from musiq_hf.common.extras import require
from musiq_hf.common.files import replace_file

PICTURE = Path(__file__).parents[1] / "pictures" / "astronaut_blurred.jpg"
PORT, WIDTH, HEIGHT = 7869, 1100, 1120
COLORS = 128  # of the palette, which makes the file small
DONE = "return document.querySelectorAll('#faults figure').length === 3"
SECONDS = 120


def take_screenshot(url: str) -> bytes:
    """Score the sample picture on the page, and return what the browser shows, as PNG."""
    webdriver: Any = require("selenium.webdriver", extra="web")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for word in ("--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"):
        options.add_argument(word)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        browser.set_window_size(WIDTH, HEIGHT + 150)
        browser.implicitly_wait(SECONDS)
        browser.get(url)
        browser.find_element("css selector", "#picture input[type=file]").send_keys(str(PICTURE.resolve()))
        end = time.monotonic() + SECONDS
        while not browser.execute_script(DONE):
            if time.monotonic() > end:
                raise ValueError(f"The page was not done within {SECONDS} seconds. Try again on an idle machine.")
            time.sleep(0.2)
        time.sleep(1)  # until what moves stands still
        content: bytes = browser.get_screenshot_as_png()
    finally:
        browser.quit()
    return content


def main() -> None:
    """Draw the picture into the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="PNG file to write")
    arguments = parse_arguments(parser)
    with start_server(ServeSettings(port=PORT)) as url:
        shown = Image.open(io.BytesIO(take_screenshot(url))).convert("RGB")
    with replace_file(arguments.output) as temporary:
        shown.quantize(COLORS).save(temporary, "PNG", optimize=True)
    print(f"{arguments.output}: {shown.width} x {shown.height} pixels")


if __name__ == "__main__":
    sys.exit(run_command("draw_page.py", main))

# SPDX-License-Identifier: Apache-2.0
"""The page in a browser, wide and narrow. It needs the extra `serve`, selenium, and Chromium with its driver.

Screenshots go to runs/screenshots.
"""

import re
import time

import pytest
from app_server import MODELS
from places import ROOT

pytest.importorskip("gradio")
webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
SCREENSHOTS = ROOT / "runs" / "screenshots"
MARKUP = "<b>bold<img src=x onerror=alert(1)>${7*7}.jpg"
SIZES = {"wide": (1280, 1000), "narrow": (400, 900)}
# Contrast of a text with what is behind it, after WCAG 2: for each text that is seen, its size, weight and ratio.
CONTRAST = """
const ratios = [];
const canvas = document.createElement('canvas').getContext('2d');
const read = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const seen = element.checkVisibility({visibilityProperty: true, opacityProperty: true});
  if (!seen || !walker.currentNode.textContent.trim()
      || element.closest('svg, script, style, button[disabled]') || !element.getClientRects().length) continue;
  let behind = [255, 255, 255, 1];
  for (let node = element; node; node = node.parentElement) {
    const color = read(getComputedStyle(node).backgroundColor);
    if (color[3] > .99) { behind = color; break; }
  }
  const style = getComputedStyle(element), pair = [light(read(style.color)), light(behind)].sort((a, b) => b - a);
  const isLarge = parseFloat(style.fontSize) >= 24;
  ratios.push([walker.currentNode.textContent.trim().slice(0, 60), (pair[0] + .05) / (pair[1] + .05), isLarge]);
}
return ratios;
"""
# Controls that are seen, and their names for a screen reader.
CONTROLS = """
return [...document.querySelectorAll('button, a[href], input, select, textarea, [role=tab]')]
  .filter(one => one.checkVisibility({visibilityProperty: true}) && one.getClientRects().length)
  .map(one => [one.outerHTML.slice(0, 160), (one.getAttribute('aria-label') || one.innerText || one.title ||
    (one.labels && [...one.labels].map(label => label.innerText).join(' ')) || '').trim()]);
"""


@pytest.fixture(scope="module")
def browser():
    from selenium.common.exceptions import WebDriverException

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--force-prefers-reduced-motion"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        running = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    except WebDriverException as error:
        pytest.fail(f"Chromium cannot be started ({error.msg}). Install it: apt-get install chromium chromium-driver")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    yield running
    running.quit()


class Page:
    """The page at one size, with the words of a user."""

    def __init__(self, browser, url, size):
        self.browser, self.size = browser, size
        width, height = SIZES[size]
        self.resize(width, height)
        browser.get("about:blank")  # the page before it may complain that its stream ends
        browser.get_log("browser")
        browser.get(url)
        self.wait("#picture input[type=file]")

    def resize(self, width, height):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def wait(self, selector, pattern="", count=1, seconds=60):
        """Wait until so many elements are there, the first of which has a text, and return that."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            texts = self.browser.execute_script(
                "return [...document.querySelectorAll(arguments[0])].map(one => one.textContent.trim())", selector
            )
            if len(texts) >= count and re.search(pattern, texts[0]):
                return texts[0]
            time.sleep(0.1)
        pytest.fail(f"{selector} with {pattern!r} does not come: {texts}")

    def tab(self, name):
        for button in self.all("button[role=tab]"):
            if button.text == name and button.is_displayed():
                button.click()
                return
        pytest.fail(f"no tab {name}")

    def upload(self, name, *paths):
        self.wait(f"#{name} input[type=file]")
        self.all(f"#{name} input[type=file]")[0].send_keys("\n".join(map(str, paths)))

    def clear(self, name):
        self.all(f"#{name} button[aria-label='Remove Image']")[0].click()
        self.wait("#score", "Choose, drop or paste")

    def score(self, path):
        self.upload("picture", path)
        return float(self.wait("#score .mq-score", r"\d"))

    def shoot(self, name):
        width, _ = SIZES[self.size]
        self.resize(width, max(600, self.browser.execute_script("return document.body.scrollHeight")))
        time.sleep(0.3)
        self.browser.save_screenshot(str(SCREENSHOTS / f"{name}_{self.size}.png"))
        self.resize(*SIZES[self.size])

    def check(self):
        """Check what must hold of any state of the page."""
        inner, whole = self.browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
        assert whole <= inner == SIZES[self.size][0]
        errors = [entry for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert errors == []
        weak = [
            (text, ratio)
            for text, ratio, is_large in self.browser.execute_script(CONTRAST)
            if ratio < (3 if is_large else 4.5)
        ]
        assert weak == []
        nameless = [markup for markup, name in self.browser.execute_script(CONTROLS) if not name]
        assert nameless == []


@pytest.fixture(params=SIZES)
def page(request, browser, server):
    opened = Page(browser, server.url, request.param)
    yield opened
    opened.check()


def test_scores_are_those_of_the_command(page, kinds, expected):
    for name in ("photo.jpg", "gray16.png", "turned.jpg", "alpha.png", "gray16.tif"):
        assert page.score(kinds[name]) == pytest.approx(expected[name, MODELS[0]], abs=0.1), name
        assert page.wait("#score h2") == name
        assert page.wait("#signature").startswith(f"Made with {MODELS[0]}|")
        if name == "photo.jpg":
            page.wait("#map text", count=4)
            page.wait("#faults figure", count=3)
            page.shoot("score")
        page.check()
        page.clear("picture")


def test_a_format_that_browsers_do_not_show_is_shown(page, kinds):
    page.score(kinds["gray16.tif"])
    width = page.browser.execute_script("return document.querySelector('#score img.mq-copy').naturalWidth")
    assert width == 320
    page.shoot("tiff")


def test_another_checkpoint_scores_the_same_picture(page, kinds, expected):
    page.score(kinds["photo.jpg"])
    page.all("#model input")[0].click()
    page.wait("#model ul[role=listbox] li, ul[role=listbox] li", count=2)
    (other,) = [one for one in page.all("ul[role=listbox] li") if MODELS[1] in one.text]
    other.click()
    page.wait("#signature", re.escape(f"Made with {MODELS[1]}|"))
    score = float(page.wait("#score .mq-score", r"\d"))
    assert score == pytest.approx(expected["photo.jpg", MODELS[1]], abs=0.1)


def test_a_broken_file_with_markup_in_its_name_is_one_readable_sentence(page, tmp_path):
    broken = tmp_path / MARKUP
    broken.write_bytes(b"no picture at all")
    page.upload("picture", broken)
    sentence = page.wait("#score [role=alert]")
    assert re.fullmatch(r".*bold.*\.jpg: not a picture that Pillow can read\. Convert it to PNG or JPEG\.", sentence)
    assert not page.all("#score b, #score img")
    page.shoot("broken")


def test_two_pictures_are_compared(page, kinds, expected):
    page.tab("Compare")
    page.wait("#left input[type=file]")
    page.all("#compare")[0].click()
    assert "Two pictures are needed" in page.wait("#verdict [role=alert]")
    page.upload("left", kinds["photo.jpg"])
    page.upload("right", ROOT / "examples" / "pictures" / "rocket_blurred_noisy.jpg")
    page.wait("#left img")
    page.wait("#right img")
    page.all("#compare")[0].click()
    verdict = page.wait("#verdict", "typical error")
    shown = [float(one.text) for one in page.all("#verdict .mq-score")]
    assert shown[0] == pytest.approx(expected["photo.jpg", MODELS[0]], abs=0.1)
    assert "The left one, photo.jpg, scores higher" in verdict and "more than the typical error" in verdict
    page.shoot("compare")


def test_many_pictures_become_a_table_that_can_be_saved(page, kinds, expected, tmp_path):
    page.browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path), "eventsEnabled": True}
    )
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    page.tab("Many")
    page.upload("files", kinds["photo.jpg"], kinds["gray16.png"], broken)
    page.wait("#files", "broken")
    page.all("#run")[0].click()
    assert page.wait("#table", r"3 pictures, 1 with an error\.")
    rows = {row.text.partition(" ")[0].partition("\n")[0]: row.text for row in page.all("#table tbody tr")}
    assert f"{expected['photo.jpg', MODELS[0]]:.1f}" in rows["photo.jpg"] and "not a picture" in rows["broken.jpg"]
    page.wait("#csv")
    page.shoot("many")
    page.all("#csv")[0].click()
    end = time.monotonic() + 30
    while not (saved := list(tmp_path.glob("*.csv"))) and time.monotonic() < end:
        time.sleep(0.1)
    lines = saved[0].read_text().splitlines()
    assert lines[0] == "key,width,height,score,score_0_1,model,signature,error,percentile,stars" and len(lines) == 4


def test_the_keyboard_reaches_every_control_and_the_focus_is_seen(page):
    from selenium.webdriver.common.keys import Keys

    body, reached = page.all("body")[0], []
    for _ in range(25):
        body.send_keys(Keys.TAB)
        name, outline = page.browser.execute_script(
            "const one = document.activeElement, style = getComputedStyle(one);"
            "return [one === document.body ? '' : one.getAttribute('aria-label') || one.innerText,"
            " style.outlineStyle + ' ' + style.outlineWidth]"
        )
        if name:
            reached.append(name.strip())
            assert outline == "solid 3px", (name, outline)
    assert {"Score", "its documents", "Checkpoint"} <= set(reached)
    assert any("upload" in name.lower() or "drop" in name.lower() for name in reached)


def test_inputs_of_files_have_names_of_their_own(page):
    page.tab("Compare")
    page.wait("#right")
    names = page.browser.execute_script(
        "return [...document.querySelectorAll('[role=group]')].map(one => one.getAttribute('aria-label'))"
    )
    assert {"Picture to score", "Left picture", "Right picture"} <= set(names)


def test_dark_colours_can_be_read(page, kinds):
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
    try:
        page.browser.refresh()
        page.wait("#picture input[type=file]")
        assert page.all("body.dark")
        page.score(kinds["photo.jpg"])
        page.wait("#faults figure", count=3)
        page.shoot("dark")
        page.check()
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_nothing_comes_from_elsewhere(page, server):
    sources = page.browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert sources and all(name.startswith((server.url, "data:", "blob:")) for name in sources)

"""The report and the board page in a real browser: they ask for nothing, say nothing, fit, can be read and printed.

Each check is also made on a page with that very fault, so that it is known to be able to fail.
"""

from __future__ import annotations

import http.server
import io
import itertools
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from configs.runfolder import RunFolder
from tests.full_run import write_full_run
from tests.pages.browser import Browser
from train.board import write_board
from train.report import write_report

PAGES = ("report.html", "board.html")
# Of every element with text of its own: contrast of its colour with what is behind it (WCAG 2.1, 1.4.3); the least of all.
LEAST_CONTRAST = """(() => {
  const light = c => { const v = c / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const color = parse(getComputedStyle(node).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  let least = 21;
  for (const node of document.body.querySelectorAll("*:not(svg *)")) {
    if (![...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim())) continue;
    const [a, b] = [luminance(parse(getComputedStyle(node).color)), luminance(behind(node))];
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
})()"""
HEADINGS = "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(node => Number(node.tagName[1]))"
PICTURES_WITHOUT_WORDS = "[...document.querySelectorAll('svg')].filter(node => !node.closest('[aria-label]')).length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with both pages."""
    path = write_full_run(tmp_path_factory.mktemp("runs"))
    write_report(RunFolder(path))
    write_board(path, path)
    return path


def ink(png: bytes) -> float:
    """Returns the share of the picture that is not its commonest colour."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    counts = sorted((count for count, _ in image.getcolors(1 << 24) or []), reverse=True)
    return 1 - counts[0] / sum(counts)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [1280, 400])
def test_a_page_asks_for_nothing_and_fits(browser: Browser, run: Path, name: str, width: int) -> None:
    seen = browser.open(run / name, width=width)
    assert seen.requests == [(run / name).as_uri()]
    assert seen.complaints == []
    assert seen.content_width <= seen.width, "it scrolls sideways"
    assert ink(seen.screenshot) > 0.02


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_by_everybody(browser: Browser, run: Path, name: str) -> None:
    browser.open(run / name)
    for scheme in ("light", "dark"):
        browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        assert browser.evaluate(LEAST_CONTRAST) >= 4.5, scheme
    headings = browser.evaluate(HEADINGS)
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    assert browser.evaluate(PICTURES_WITHOUT_WORDS) == 0
    assert browser.evaluate("document.documentElement.lang") == "en"


def test_chinese_is_drawn_in_a_font_that_has_it(browser: Browser, run: Path) -> None:
    browser.open(run / "board.html")
    assert browser.evaluate("document.querySelectorAll('h2 [lang=zh-Hant-HK]').length") == 12
    for method in ("DOM.enable", "CSS.enable"):
        browser.ask(method)
    root = browser.ask("DOM.getDocument")["root"]["nodeId"]
    heading = browser.ask("DOM.querySelector", nodeId=root, selector="h2 [lang=zh-Hant-HK]")["nodeId"]
    (font,) = browser.ask("CSS.getPlatformFontsForNode", nodeId=heading)["fonts"]
    assert "DejaVu" not in font["familyName"], "boxes instead of characters"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints(browser: Browser, run: Path, name: str) -> None:
    browser.open(run / name)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF-")
    boxes = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", pdf)
    assert 2 <= len(boxes) <= 8
    for width, height in boxes:
        # A4 is 210 x 297 mm; a point is 1/72 inch.
        assert float(width) == pytest.approx(210 / 25.4 * 72, abs=1) and float(height) == pytest.approx(297 / 25.4 * 72, abs=1)


class _Counting(http.server.BaseHTTPRequestHandler):
    """Counts what is asked of it; has nothing."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server of this machine that counts requests."""
    _Counting.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Counting) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_a_request_would_be_seen(browser: Browser, run: Path, server: str, tmp_path: Path) -> None:
    text = (run / "board.html").read_text(encoding="utf-8")
    planted = tmp_path / "planted.html"
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    planted.write_text(open_page.replace("</main>", f'<img src="{server}/pixel.png" alt=""></main>'), encoding="utf-8")
    seen = browser.open(planted)
    assert f"{server}/pixel.png" in seen.requests and "/pixel.png" in _Counting.asked
    _Counting.asked.clear()
    # The page's own policy stops the same picture, and says so.
    planted.write_text(text.replace("</main>", f'<img src="{server}/pixel.png" alt=""></main>'), encoding="utf-8")
    seen = browser.open(planted)
    assert _Counting.asked == [] and any("Content Security Policy" in words for words in seen.complaints)


def test_a_blank_a_wide_and_a_pale_page_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "blank.html").write_text("<!doctype html><body>.</body>")
    assert ink(browser.open(tmp_path / "blank.html").screenshot) < 0.02
    (tmp_path / "wide.html").write_text("<!doctype html><body><p style='width: 500px; color: #999'>wide and pale</p></body>")
    seen = browser.open(tmp_path / "wide.html", width=400)
    assert seen.content_width > seen.width
    assert browser.evaluate(LEAST_CONTRAST) < 3

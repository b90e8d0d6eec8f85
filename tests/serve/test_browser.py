"""A whole migration on the operators' page, in a real browser."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.serve.browser import Page, chromium, opened
from tests.serve.running import CONTROL_TOKEN, DIMENSION, Running, migrate_to_shadow
from vectorstore.types import Query

pytestmark = pytest.mark.slow

SIZES = (390, 1280, 1920)
# Texts of a drawing that reach beyond its edge, where they are cut off.
TEXTS_CUT_OFF = """
[...document.querySelectorAll('svg text')].filter((text) => {
  const mine = text.getBoundingClientRect();
  const whole = text.ownerSVGElement.getBoundingClientRect();
  return mine.left < whole.left - 1 || mine.right > whole.right + 1;
}).map((text) => text.textContent)
"""

# Texts that are not told from what is behind them by the 4.5 to 1 that WCAG 2 asks for.
TEXTS_TOO_PALE = """
(() => {
  const parts = (color) => color.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, place) => sum + one * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const found = parts(getComputedStyle(one).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const pale = [];
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !one.checkVisibility()) continue;
    const style = getComputedStyle(one);
    const [ink, paper] = [one.closest('svg') ? style.fill : style.color, behind(one)];
    const [high, low] = [light(parts(ink)), light(paper)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) pale.push(`${one.textContent.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return pale;
})()
"""


@pytest.fixture
def page() -> Iterator[Page]:
    program = chromium()
    if program is None:
        pytest.skip("there is no browser here; on Debian: apt-get install chromium")
    with opened(program) as tab:
        yield tab


def choose(page: Page, action: str, *, why: str, checked: str = "") -> None:
    """Press a button, fill in the dialog and confirm."""
    page.run(f"document.querySelector('[data-action=\"{action}\"] button').click()")
    page.until("document.getElementById('dialog').open")
    if checked:
        page.run(f"document.getElementById('dialog-{checked}').click()")
    page.type(why)
    page.key("Enter")


def pictures(page: Page, folder: Path, name: str) -> None:
    """A PNG at each width, light and dark. Nothing may be wider than the window, no text be cut off."""
    for width in SIZES:
        for dark in (False, True):
            page.look(width=width, dark=dark)
            page.picture(folder / f"{name}-{width}-{'dark' if dark else 'light'}.png")
            assert page.run("document.documentElement.scrollWidth") <= width
            assert page.run(TEXTS_CUT_OFF) == []
            assert page.run(TEXTS_TOO_PALE) == []
    page.look(width=1280)


def test_a_migration_on_the_page(migrating: Running, page: Page, tmp_path: Path) -> None:
    """Evidence grows, a flip that is too early is refused with the reason, the flip, the reverse
    shadow, the way back; no console error, no request off the host, at three widths, light and dark."""
    migrate_to_shadow(migrating)
    page.look(width=1280)
    page.visit(migrating.url)
    page.until("document.getElementById('connection').textContent === 'live'")
    page.until("document.querySelectorAll('#actions button').length === 6")
    page.run("document.getElementById('token').value = " + repr(CONTROL_TOKEN))
    page.run("document.getElementById('operator').value = 'Chisomo'")

    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    choose(page, "cutover", why="too early")
    page.until("document.getElementById('dialog-error').textContent.includes('not now')")
    for width in SIZES:
        page.look(width=width, dark=True)
        page.picture(folder / f"dialog-{width}-dark.png", whole=False)
        assert page.run("document.getElementById('dialog').scrollWidth") <= width
    page.look(width=1280)
    assert "queries" in page.run("document.getElementById('dialog-error').textContent")
    # The browser itself reports the refusal's status; nothing else may be reported.
    assert all("409" in trouble for trouble in page.troubles)
    page.troubles.clear()
    page.key("Escape")
    page.until("!document.getElementById('dialog').open")
    assert page.run("document.querySelector('.answer').textContent").startswith("Not yet")
    pictures(page, folder, "early")
    # It is drawn anew with every query that comes, and stays as the reader left it.
    page.run("document.querySelector('[data-panel=measured] details').open = true")
    drawn = page.run("document.querySelector('[data-panel=measured]').textContent")

    stopping = threading.Event()

    def traffic() -> None:
        random = np.random.default_rng(1)
        while not stopping.is_set():
            migrating.router.search(Query(random.normal(size=DIMENSION)))
            stopping.wait(0.005)

    searching = threading.Thread(target=traffic)
    searching.start()
    try:
        page.until("document.querySelector('.verdict-word').textContent === 'PASS'", within_s=30)
        page.until(
            "document.querySelector('[data-action=\"cutover\"] button')"
            ".getAttribute('aria-disabled') === 'false'"
        )
        assert page.run("document.querySelector('.answer').textContent").startswith("You may flip")
        assert page.run("document.querySelector('[data-panel=measured]').textContent") != drawn
        assert (
            page.run("document.querySelectorAll('[data-panel=measured] details[open]').length") == 1
        )
        choose(page, "cutover", why="the gate says pass")
        page.until("document.getElementById('outcome').textContent.includes('postgresql answers')")
        page.until("document.getElementById('news').textContent.includes('postgresql answers')")
        page.until("document.querySelector('.facts').textContent.includes('mirrored to FAISS')")
        page.until(
            "document.querySelector('[data-panel=\"gate\"]').textContent"
            ".includes('FAISS after the flip')",
            within_s=30,
        )
        page.until("document.querySelector('.curve.store-postgresql') !== null", within_s=40)
        page.until("document.querySelectorAll('[data-panel=latency] circle').length", within_s=40)
        pictures(page, folder, "flipped")
        choose(page, "rollback", why="to show it")
        page.until("document.getElementById('outcome').textContent.includes('faiss answers')")
    finally:
        stopping.set()
        searching.join()
    assert "Chisomo" in page.run("fetch('/v1/report').then((answer) => answer.text())")
    assert page.troubles == []
    assert page.requested
    assert all(url.startswith((migrating.url, "data:")) for url in page.requested)


def test_the_page_is_usable_by_keyboard(proxy: Running, page: Page) -> None:
    """Every control is reached by Tab, in order, with a name that a screen reader says."""
    page.look(width=1280)
    page.visit(proxy.url)
    page.until("document.querySelectorAll('#actions button').length === 6")
    reached: list[str] = []
    for _ in range(40):
        page.key("Tab")
        reached.append(
            page.run(
                "(document.activeElement.labels?.[0] ?? document.activeElement).textContent.trim()"
            )
        )
    for name in ("Skip to the decisions", "Control token", "Flip to PostgreSQL", "Finalize"):
        assert name in reached, reached
    assert reached.index("Control token") < reached.index("Flip to PostgreSQL")
    # A dialog opens by Enter, begins where one writes, and gives the focus back where it came from.
    page.run("document.querySelector('[data-action=rollback] button').focus()")
    page.key("Enter")
    page.until("document.getElementById('dialog').open")
    assert page.run("document.activeElement.id") == "why"
    page.key("Escape")
    page.until("!document.getElementById('dialog').open")
    assert page.run("document.activeElement.textContent") == "Roll back to FAISS"
    assert page.run("document.querySelectorAll('h1').length") == 1
    assert page.run("['header', 'main'].map((name) => document.querySelectorAll(name).length)") == [
        1,
        1,
    ]
    unnamed = "[...document.querySelectorAll('section')].filter((one) => !document.getElementById(one.getAttribute('aria-labelledby'))?.textContent).length"
    assert page.run(unnamed) == 0
    drawn = "[...document.querySelectorAll('svg[role=img]')].every((one) => one.querySelector('title') && one.querySelector('desc'))"
    assert page.run(drawn) is True
    assert page.run("document.getElementById('news').getAttribute('aria-live')") == "polite"
    assert "FAISS" in page.run("document.getElementById('news').textContent").upper()
    unnamed = "[...document.querySelectorAll('input')].filter((one) => !one.labels.length).length"
    assert page.run(unnamed) == 0
    assert page.troubles == []

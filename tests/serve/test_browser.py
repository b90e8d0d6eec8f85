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

    choose(page, "cutover", why="too early")
    page.until("document.getElementById('dialog-error').textContent.includes('not now')")
    assert "queries" in page.run("document.getElementById('dialog-error').textContent")
    # The browser itself reports the refusal's status; nothing else may be reported.
    assert all("409" in trouble for trouble in page.troubles)
    page.troubles.clear()
    page.key("Escape")
    page.until("!document.getElementById('dialog').open")

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
        choose(page, "cutover", why="the gate says pass")
        page.until("document.getElementById('outcome').textContent.includes('postgresql answers')")
        page.until("document.getElementById('news').textContent.includes('postgresql answers')")
        page.until("document.querySelector('.facts').textContent.includes('mirrored to FAISS')")
        page.until(
            "document.querySelector('[data-panel=\"gate\"]').textContent"
            ".includes('FAISS after the flip')",
            within_s=30,
        )
        folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
        folder.mkdir(parents=True, exist_ok=True)
        for width in SIZES:
            for dark in (False, True):
                page.look(width=width, dark=dark)
                page.picture(folder / f"page-{width}-{'dark' if dark else 'light'}.png")
                assert page.run("document.documentElement.scrollWidth") <= width
        page.look(width=1280)
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
    assert page.run("document.querySelectorAll('h1').length") == 1
    unnamed = "[...document.querySelectorAll('input')].filter((one) => !one.labels.length).length"
    assert page.run(unnamed) == 0
    assert page.troubles == []

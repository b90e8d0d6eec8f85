"""What the page says of a flip, at each place where a migration may stand."""

from __future__ import annotations

from typing import Any

import pytest

from shadow.actions import actions, may_flip

READY: dict[str, Any] = {
    "phase": "shadow",
    "verdict": "pass",
    "open": [],
    "latch": None,
    "rehearsing": False,
    "verify": {"state": "clean"},
    "stores": {"postgresql": {"state": "following"}},
}
AWAY = {"postgresql": {"state": "unavailable"}}


@pytest.mark.parametrize(
    ("change", "words", "allowed"),
    [
        ({}, "You may flip", True),
        ({"phase": "ramp"}, "You may flip", True),
        ({"verdict": "undecided", "open": ["85 more queries"]}, "not enough evidence", False),
        ({"verdict": "hold", "open": ["recall is low"]}, "Do not flip: the evidence", False),
        ({"latch": "recall fell"}, "Do not flip: an automatic rollback", False),
        ({"stores": AWAY}, "cannot be reached", False),
        ({"phase": "faiss"}, "holds no copy", False),
        ({"phase": "postgresql"}, "You may roll back", False),
        ({"phase": "postgresql", "rehearsing": True}, "rehearsal is under way", False),
        ({"phase": "final"}, "is over", False),
    ],
)
def test_the_sentence_and_the_button_agree(
    change: dict[str, Any], words: str, allowed: bool
) -> None:
    """The sentence tells at a glance whether one may flip, and the button says the same."""
    status = {**READY, **change}
    found = actions(status)
    assert words in may_flip(status, found)
    cutover = next(action for action in found if action.name == "cutover")
    assert (cutover.refused == "") is allowed
    assert may_flip(status, found).startswith("You may flip") is allowed


def test_a_reason_overrides_the_verdict_and_nothing_else() -> None:
    """Missing evidence may be overridden; a latch, an absent copy or an absent server may not."""
    open_verdict = {"verdict": "undecided", "open": ["85 more queries"]}
    for change, forcible in (({}, True), ({"latch": "x"}, False), ({"stores": AWAY}, False)):
        found = actions({**READY, **open_verdict, **change})
        assert next(one for one in found if one.name == "cutover").forcible is forcible

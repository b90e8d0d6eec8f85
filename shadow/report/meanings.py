"""What each cause of a missed hit means, for people."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["MEANINGS"]

MEANINGS: Mapping[str, str] = {
    "ann_miss": "the shadow holds the row, and its index did not find it: raise ef_search",
    "primary_miss": "the primary was the wrong one: it holds a nearer row and did not find it",
    "row_missing": "the shadow does not hold the row: run verify",
    "row_stale": "the stores hold different versions of the row: run verify",
    "row_extra": "a row that only the shadow holds took its place: run verify",
    "tie": "an equally near row took its place: neither store is wrong",
    "filter": "the stores disagree on whether the row matches the filter",
    "error": "the shadow failed",
    "timeout": "the shadow did not answer in time",
    "dropped": "sampled and then dropped, lost or killed",
    "wrong_scores": "the same record got another score: the metric or operator differs, or the vector (verify)",
    "unjudged": "left over by the budget of exact scans",
}

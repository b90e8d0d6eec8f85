"""What one wants to know of a migration before reading on: its facts at a glance, as text."""

from __future__ import annotations

from dataclasses import dataclass

from shadow.report import words
from shadow.report.model import ParityReport

__all__ = ["Fact", "facts"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know at a glance."""

    term: str
    value: str
    note: str = ""


def facts(report: ParityReport) -> tuple[Fact, ...]:
    """Phase, evidence, recall, latency, data and lag, as far as they are known."""
    primary, shadow = words.store_name(report.primary), words.store_name(report.shadow_store)
    recall = next((f for f in report.figures if f.name.startswith("recall")), None)
    found = [
        Fact("Phase", report.phase, f"{primary} answers; mirrored to {shadow}"),
        Fact(
            "Evidence",
            words.count(report.sampling.compared),
            f"live queries compared, {words.count(report.sampling.distinct)} of them distinct",
        ),
    ]
    if recall is not None:
        known = recall.lower_bound is not None
        bound = f"at least {words.share(recall.lower_bound)}" if known else "no bound yet"
        bound += f"; threshold {words.share(recall.threshold)}"
        found.append(Fact(words.figure_title(recall), words.share(recall.mean), bound))
    tails = {item.store: words.milliseconds(item.percentiles.p95) for item in report.latency}
    if report.judged in tails:
        others = [f"{words.store_name(s)} {t}" for s, t in tails.items() if s != report.judged]
        found.append(
            Fact(f"{words.store_name(report.judged)}, p95", tails[report.judged], "; ".join(others))
        )
    checked = report.verification
    note = f"{words.age(checked.age_s)} ago" if checked.age_s is not None else ""
    rows = f"{words.count(checked.rows)} rows" if checked.rows is not None else ""
    state = "not verified" if checked.state == "never" else checked.state
    found.append(Fact("Data", state, ", ".join(part for part in (rows, note) if part)))
    behind = sum(item.entries for item in report.lag)
    levels = "; ".join(f"{words.store_name(i.store)} {words.lag_sentence(i)}" for i in report.lag)
    if report.lag:
        found.append(Fact("Lag", words.count(behind) if behind else "level", levels))
    return tuple(found)

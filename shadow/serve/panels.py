"""The parts of the page that change: each a piece of markup under a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shadow.actions import actions, may_flip
from shadow.core.phases import FAISS, POSTGRESQL
from shadow.load_clock import COPYING
from shadow.report import bars, provenance, sections, words
from shadow.report.markup import Markup, element
from shadow.report.model import ParityReport
from shadow.report.tables import Column, Table
from shadow.serve.courses import course_numbers, latency_course
from shadow.serve.server_panel import server_panel
from shadow.serve.watch import Look

if TYPE_CHECKING:
    from vectorstore.postgres.building import BuildProgress

__all__ = ["panels"]

DECIDED = ("moved from", "began a rehearsal", "ramp from")


def panels(look: Look) -> Mapping[str, Markup]:
    """Every panel by name, in the order of the page."""
    report = look.report
    answer = may_flip(look.status, actions(look.status))
    return {
        "verdict": sections.verdict(report, answer=answer),
        "standing": _standing(look),
        "gate": sections.gate(report),
        "recall": sections.recall(report),
        "divergence": sections.divergence(report),
        "worst": sections.worst(report, folded=True),
        "stores": _stores(look),
        "latency": sections.latency(report, course=_course(look)),
        "server": server_panel(look),
        "decisions": sections.decisions(report),
        "measured": _measured(report),
    }


def _fact(term: str, value: str, *notes: str) -> Markup:
    told = [element("dd", sections.data_text(note), class_="note") for note in notes if note]
    return element(
        "div",
        element("dt", term),
        element("dd", sections.data_text(value), class_="value"),
        *told,
    )


def _standing(look: Look) -> Markup:
    status = look.status
    evidence, journal, verify = status["evidence"], status["journal"], status["verify"]
    mirrored = look.report.shadow_store
    mirror = f"mirrored to {words.store_name(mirrored)}"
    found = [
        _fact(
            "Phase",
            status["phase"],
            f"{words.store_name(status['primary'])} answers"
            + (f" {1 - status['postgresql_share']:.0%}, PostgreSQL {status['postgresql_share']:.0%}"
               if status["phase"] == "ramp" else ""),
            _decided(look),
        ),
        _fact(
            "Wanted",
            {"faiss": "FAISS", "postgresql": "PostgreSQL"}.get(status["wanted"], status["wanted"]),
            f"by {status['wanted_by']}",
            *(f"waits for: {sentence}" for sentence in status["waiting_for"][:4]),
        ),
        _fact("Lag", *_lag(status)),
        _fact(
            "Mirror",
            f"{status['mirror_rate']:.0%}",
            mirror if mirrored else "nobody is mirrored to",
            f"{evidence['compared']:,} compared, {evidence['dropped']:,} dropped, "
            f"{evidence['lost']:,} lost or under way",
        ),
        _fact(
            "Journal",
            f"{journal['bytes'] / max(1, journal['bytes_max']):.1%} full",
            f"{journal['bytes'] / 1e6:.1f} of {journal['bytes_max'] / 1e6:,.0f} MB, "
            f"{journal['entries']:,} entries, head {journal['head']:,}",
        ),
        _fact(
            "Verify",
            "never" if verify is None else verify["state"],
            "" if verify is None else
            f"{verify['rows']:,} rows, {words.age(verify['age_s'])} ago",
        ),
        _fact("FAISS snapshot", *_snapshot(status)),
    ]  # fmt: skip
    if status["latch"]:
        found.insert(1, _fact("Latched", "automatic rollback", status["latch"]))
    # An index build has a line of its own, whoever builds.
    if look.load is not None and look.load.doing == COPYING:
        found.append(_backfill(look))
    if look.server is not None and look.server.build is not None:
        found.append(_build(look.server.build, look.build_left_s))
    return element("dl", *found, class_="facts")


def _backfill(look: Look) -> Markup:
    load = look.load
    assert load is not None
    left = "time left not yet known" if load.left_s is None else f"{words.age(load.left_s)} left"
    share = load.done / load.total if load.total else 0.0
    return element(
        "div",
        element("dt", "Backfill"),
        element("dd", f"{share:.0%}", class_="value"),
        element("dd", bars.share_bar(share, ident="backfill", title="Backfill"), class_="note"),
        element("dd", f"{load.doing}: {load.done:,} of {load.total:,}; {left}", class_="note"),
    )


def _build(build: BuildProgress, left_s: float | None) -> Markup:
    share = build.done / build.total if build.total else 0.0
    left = (
        "time left not yet known" if left_s is None else f"{words.age(left_s)} left of this phase"
    )
    return element(
        "div",
        element("dt", "Index build"),
        element("dd", f"{share:.0%}", class_="value"),
        element("dd", bars.share_bar(share, ident="build", title="Index build"), class_="note"),
        element("dd", f"{build.phase}; {left}", class_="note"),
    )


def _decided(look: Look) -> str:
    """Who brought about the phase in force."""
    for entry in look.report.audit:
        if entry.what.startswith(DECIDED):
            return f"since {words.when(entry.at)}, by {entry.who}: {entry.why}"
    return "as it began"


def _lag(status: Mapping[str, Any]) -> tuple[str, str]:
    postgresql = status["stores"]["postgresql"]
    entries = postgresql["lag_entries"]
    if entries is None:
        return "unknown", f"PostgreSQL is {postgresql['state']}"
    if entries == 0:
        return "level", "PostgreSQL has applied every write"
    oldest_ms = postgresql["lag_oldest_ms"]
    old = "" if oldest_ms is None else f"the oldest {words.age(oldest_ms / 1e3)} old"
    return f"{entries:,} {'entry' if entries == 1 else 'entries'}", old


def _snapshot(status: Mapping[str, Any]) -> tuple[str, str]:
    faiss, head = status["stores"]["faiss"], status["journal"]["head"]
    if faiss["snapshot_seq"] is None:
        return "none", "a restart reads the whole journal"
    later = head - faiss["snapshot_seq"]
    return f"{words.age(faiss['snapshot_age_s'])} old", f"{later:,} writes came after it"


def _stores(look: Look) -> Markup:
    status = look.status
    postgresql = status["stores"]["postgresql"]
    state = postgresql["state"]
    share = status["postgresql_share"]
    latencies = {one.store: one for one in look.report.latency}
    rows = []
    for store, health, applied in (
        (FAISS, "not followed" if status["phase"] == "final" else "up", "at the head"),
        (
            POSTGRESQL,
            {"following": "up", "final": "up", "unavailable": "not reachable"}.get(state, state),
            f"write {postgresql['applied_seq']:,}",
        ),
    ):
        part = share if store == POSTGRESQL else 1 - share
        shown = latencies.get(store)
        percentiles = None if shown is None else shown.percentiles
        rows.append(
            (
                words.store_name(store),
                health,
                f"{part:.0%} of reads",
                applied,
                words.milliseconds(percentiles.p50 if percentiles else None),
                words.milliseconds(percentiles.p95 if percentiles else None),
                words.milliseconds(percentiles.p99 if percentiles else None),
            )
        )
    table = Table(
        "Health, and latency over the mirrored queries of this era",
        (
            Column("store"), Column("health"), Column("answers"), Column("applied"),
            Column("p50", numeric=True), Column("p95", numeric=True), Column("p99", numeric=True),
        ),
        tuple(rows),
    )  # fmt: skip
    trouble = postgresql["trouble"]
    return sections.section(
        "Stores",
        sections.table(table, kind="stack"),
        element("p", sections.data_text(trouble), class_="trouble") if trouble else "",
    )


def _course(look: Look) -> Markup:
    drawn = latency_course(
        look.latency_points, budget_ms=look.report.latency_budget_ms, ident="course"
    )
    return sections.chart(
        drawn,
        "p95 over time, sampled every 15 s by this proxy",
        course_numbers(look.latency_points),
    )


def _measured(report: ParityReport) -> Markup:
    """As in the report, with what seldom changes folded away."""
    return sections.section(
        "What was measured",
        *sections.window(report),
        element(
            "details",
            element("summary", "Settings and versions"),
            sections.table(provenance.settings(report)),
            sections.table(provenance.versions(report)),
        ),
    )

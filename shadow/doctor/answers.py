"""Traps 1 to 4: answers that are too short, approximate, scored otherwise, or tied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from shadow.core.comparison import compare
from shadow.doctor.finding import Finding, Severity
from shadow.doctor.subject import Subject
from shadow.exact_scans import ExactStore, scored
from vectorstore.postgres.queries import Queries, clause_values, filter_parameters
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Metric, Query

__all__ = ["check_answers"]

SCORE_TOLERANCE = 1e-4
TIE_TOLERANCE = 1e-5
DUPLICATES_SHOWN = 5
EF_SEARCH_DEFAULT = 40


def check_answers(subject: Subject) -> Iterator[Finding]:
    """Findings about what the stores answer to sample queries."""
    yield from _filters(subject)
    yield from _approximation(subject)
    yield from _scores(subject)
    yield from _duplicates(subject)


def _filters(subject: Subject) -> Iterator[Finding]:
    short: list[str] = []
    for allowed in subject.filters if subject.queries else ():
        query = replace(subject.queries[0], filter=allowed, k=10)
        for store in _stores(subject):
            expected = min(query.k, store.count(allowed))
            found = len(store.search(query).hits)
            if found < expected:
                short.append(f"{store.name}: {found} of {expected} rows for {allowed.clauses}")
        if subject.postgresql is not None:
            lines = _index_alone(subject.postgresql, query)
            short += [f"postgresql: {lines}, so an exact scan answers instead"] if lines else []
    if not short:
        return
    answered = all("instead" in line for line in short)
    yield Finding(
        1,
        "filters",
        Severity.WARNING if answered else Severity.FAULT,
        "filtered queries run out of candidates: the index filters after the scan",
        tuple(short),
        "set postgresql.iterative_scan to strict_order (pgvector 0.8) and raise ef_search; if it is FAISS "
        "that is short, the old answers are the wrong ones",
    )


def _index_alone(store: PostgresStore, query: Query) -> str:
    """What the index gives before the store fills the answer up; empty if it gives enough."""
    if not store.refresh_index() or store.describe()["iterative_scan"] not in (None, "off"):
        return ""
    clauses = filter_parameters(query.filter)
    text = Queries(store.settings).search(query.k, len(clauses), exact=False)
    vector = np.asarray(query.vector, dtype=np.float32)
    if store.metric is Metric.COSINE:
        vector = vector / np.linalg.norm(vector)
    values = {"vector": vector, **clause_values(clauses)}
    rows = store.read(
        lambda connection: connection.cursor(binary=True).execute(text, values).fetchall()
    )
    found = sum(row[2] is not None for row in rows)
    expected = min(query.k, store.count(query.filter))
    return f"the index alone gave {found} of {expected} rows" if found < expected else ""


def _approximation(subject: Subject) -> Iterator[Finding]:
    for store in _stores(subject):
        recalls = [_recall(store, query) for query in subject.queries]
        mean = sum(recalls) / len(recalls) if recalls else 1.0
        if mean >= subject.recall_min:
            continue
        settings = store.describe()
        old = store.name == "faiss"
        ef_search = settings.get("ef_search", settings.get("nprobe"))
        yield Finding(
            2,
            "approximate answers",
            Severity.WARNING if old else Severity.FAULT,
            f"{store.name} finds {mean:.3f} of the true nearest rows; {subject.recall_min:g} is asked for",
            (
                f"{len(recalls)} sample queries held against an exact scan; ef_search or nprobe is "
                f"{ef_search}; pgvector's default of {EF_SEARCH_DEFAULT} and a k above it are the "
                "usual causes",
            ),
            "FAISS is the one that misses: expect primary_miss in the report, and do not copy its answers"
            if old
            else "raise postgresql.ef_search; `shadow tune` finds the cheapest setting that is good enough",
        )


def _recall(store: ExactStore, query: Query) -> float:
    exact, found = store.search_exact(query), store.search(query)
    scale = float(np.linalg.norm(query.vector)) if store.metric is not Metric.COSINE else 1.0
    return compare(
        scored(exact.hits),
        scored(found.hits),
        k=query.k,
        tolerance=TIE_TOLERANCE * max(1.0, scale),
        live=lambda _: True,
    ).recall


def _scores(subject: Subject) -> Iterator[Finding]:
    store = subject.postgresql
    if store is None:
        return
    evidence: list[str] = []
    if subject.faiss.metric is not store.metric:
        evidence.append(f"FAISS ranks by {subject.faiss.metric}, PostgreSQL by {store.metric}")
    for query in subject.queries[:4]:
        theirs = {hit.id: hit for hit in store.search_exact(query).hits}
        for hit in subject.faiss.search_exact(query).hits:
            other = theirs.get(hit.id)
            if other is None or other.seq != hit.seq:
                continue
            scale = max(1.0, abs(hit.score), abs(other.score))
            if abs(hit.score - other.score) > SCORE_TOLERANCE * scale:
                evidence.append(
                    f"{hit.id}: {hit.score:.5f} in FAISS, {other.score:.5f} in PostgreSQL"
                )
                break
    if evidence:
        yield Finding(
            3,
            "score conventions",
            Severity.FAULT,
            "the same record scores differently in the two stores",
            tuple(evidence),
            "make both stores speak the metric that the vectors were made for (faiss.metric); a threshold "
            "in the application means something else until then",
        )


def _duplicates(subject: Subject) -> Iterator[Finding]:
    seen: dict[bytes, str] = {}
    pairs: list[str] = []
    for row in subject.rows:
        first = seen.setdefault(row.embedding.tobytes(), row.id)
        if first != row.id:
            pairs.append(f"{first} and {row.id}")
    if pairs:
        yield Finding(
            4,
            "ties and duplicates",
            Severity.NOTE,
            f"{len(pairs):,} of {len(subject.rows):,} sampled records repeat another's vector",
            tuple(pairs[:DUPLICATES_SHOWN]),
            "nothing to mend: answers are compared by score, so ties are no misses; a comparison by ids "
            "alone would count them",
        )


def _stores(subject: Subject) -> list[ExactStore]:
    return [subject.faiss, *([subject.postgresql] if subject.postgresql else [])]

"""Search settings measured: which are worth having, and which is the cheapest that is good enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Candidate", "Grid", "Measured", "affordable", "frontier"]

EF_SEARCH_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to search. ``exact`` reads every row; the other fields then mean nothing.

    ``rerank_factor``: so many times k come from a halfvec index and are ranked by whole vectors; with
    1 the index alone decides which rows they are.
    """

    exact: bool = False
    index_type: Literal["auto", "halfvec"] = "auto"
    hnsw_m: int = 16
    hnsw_ef_construction: int = 64
    ef_search: int = 100
    rerank_factor: int = 2
    iterative_scan: Literal["off", "strict_order", "relaxed_order"] = "strict_order"

    @property
    def build(self) -> tuple[str, int, int]:
        """What an index must be built anew for."""
        return self.index_type, self.hnsw_m, self.hnsw_ef_construction

    @property
    def name(self) -> str:
        """In a few words."""
        if self.exact:
            return "exact"
        kind = "vector" if self.index_type == "auto" else f"halfvec, rerank {self.rerank_factor}"
        scan = "" if self.iterative_scan == "strict_order" else f", {self.iterative_scan}"
        return f"{kind}, m {self.hnsw_m}/{self.hnsw_ef_construction}, ef {self.ef_search}{scan}"


@dataclass(frozen=True, slots=True)
class Grid:
    """Which settings are tried; the product of all, less what cannot differ."""

    builds: Sequence[tuple[int, int]] = ((16, 64), (32, 128))
    index_types: Sequence[Literal["auto", "halfvec"]] = ("auto", "halfvec")
    ef_search: Sequence[int] = (20, 40, 80, 160, 320, 640)
    rerank_factors: Sequence[int] = (1, 2, 4)

    def candidates(self, *, filtered: bool) -> Iterator[Candidate]:
        """All of them, exact search first, then build by build. Filters alone make iteration matter."""
        yield Candidate(exact=True)
        for index_type in self.index_types:
            for m, ef_construction in self.builds:
                for ef_search in self.ef_search:
                    for factor in self.rerank_factors if index_type == "halfvec" else (2,):
                        for scan in (
                            ("strict_order", "relaxed_order") if filtered else ("strict_order",)
                        ):
                            yield Candidate(
                                index_type=index_type,
                                hnsw_m=m,
                                hnsw_ef_construction=ef_construction,
                                ef_search=ef_search,
                                rerank_factor=factor,
                                iterative_scan=scan,
                            )


@dataclass(frozen=True, slots=True)
class Measured:
    """What a candidate showed on some queries: mean recall against the exact answer, latencies in ms."""

    candidate: Candidate
    recall: float
    p50_ms: float
    p95_ms: float
    queries: int


def frontier(measured: Sequence[Measured]) -> list[Measured]:
    """Those that no other beats in recall without being slower, from the fastest to the best."""
    kept: list[Measured] = []
    for one in sorted(measured, key=lambda m: (m.p50_ms, -m.recall)):
        if not kept or one.recall > kept[-1].recall:
            kept.append(one)
    return kept


def affordable(
    measured: Sequence[Measured], *, recall_min: float, latency_budget_ms: float
) -> list[Measured]:
    """Those that meet both thresholds, the cheapest (by the median) first."""
    good = [one for one in measured if one.recall >= recall_min and one.p95_ms <= latency_budget_ms]
    return sorted(good, key=lambda one: one.p50_ms)

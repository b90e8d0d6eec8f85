"""Eras: whatever changes answers opens a new one, detected from the live settings of both stores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Protocol

from shadow.config import GateSettings
from shadow.evidence import EvidenceBook
from shadow.evidence_view import Era

__all__ = ["Described", "open_era", "settings_of_answers"]

# What a store says of itself that changes with every write and changes no answer.
PASSING = frozenset({"tombstones", "rows"})
# Thresholds decide what a count means; the levels of confidence do not.
THRESHOLDS = (
    "recall_min",
    "success_min",
    "top1_min",
    "exact_recall_min",
    "latency_budget_ms",
    "latency_share_min",
    "latency_scope",
    "latency_ratio_max",
)


class Described(Protocol):
    """What tells its settings: a store, or a snapshot that is not loaded."""

    def describe(self) -> Mapping[str, Any]: ...


def settings_of_answers(
    faiss: Mapping[str, Any],
    postgresql: Mapping[str, Any],
    gate: GateSettings,
    *,
    embedding_model: str | None = None,
) -> dict[str, Any]:
    """The live settings that evidence depends on, flat, by dotted name.

    No store knows which model made its vectors, so ``embedding_model`` is what the settings say.
    """
    found = {f"faiss.{name}": value for name, value in faiss.items() if name not in PASSING}
    found |= {f"postgresql.{name}": v for name, v in postgresql.items() if name not in PASSING}
    found |= {f"gate.{name}": getattr(gate, name) for name in THRESHOLDS}
    return found | {"gate.strata": ", ".join(gate.strata), "embedding_model": embedding_model}


def open_era(evidence: EvidenceBook, settings: Mapping[str, Any]) -> Era:
    """The era of these settings: the one in force if nothing changed, else a new one that says why."""
    text = json.dumps(settings, sort_keys=True, default=str)
    now = evidence.era()
    why = "the first"
    if now is not None:
        names = sorted(now.settings.keys() | settings.keys())
        changed = [name for name in names if now.settings.get(name) != settings.get(name)]
        why = "; ".join(
            f"{name}: {now.settings.get(name)} -> {settings.get(name)}" for name in changed
        )
    return evidence.open_era(sha256(text.encode()).hexdigest(), settings, why=why)

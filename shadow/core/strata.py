"""Strata: shares of the traffic that are judged by themselves, besides all of it together.

A stratum is written as ``filtered``, ``unfiltered``, ``k<=10`` (or ``<``, ``>``, ``>=``, ``=``), or
``label:NAME`` for what the application calls its queries. Whether a query belongs to it is known before
it runs. The gate must pass in every declared stratum, so that a mean over all traffic cannot hide one
that is bad.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shadow.core.gate import POOLED
from vectorstore.errors import ConfigurationError

__all__ = ["STRATA_MAX", "Stratum", "declared", "strata_of"]

STRATA_MAX = 16
"""Each stratum needs evidence of its own: more of them would never all have enough."""

_COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_K = re.compile(r"k\s*(<=|>=|<|>|=)\s*([0-9]{1,4})")
_LABEL = "label:"


@dataclass(frozen=True, slots=True)
class Stratum:
    """A name and the queries that belong to it: by k, by whether there is a filter, by label."""

    name: str
    matches: Callable[[int, bool, str | None], bool]


def declared(names: Sequence[str]) -> tuple[Stratum, ...]:
    """The strata of these names; ConfigurationError names the one that is not understood."""
    if len(names) > STRATA_MAX:
        raise ConfigurationError(
            f"{len(names)} strata are declared; at most {STRATA_MAX} are allowed"
        )
    if len(set(names)) < len(names):
        raise ConfigurationError("a stratum is declared twice; name each once")
    return tuple(_parsed(name) for name in names)


def strata_of(
    strata: Sequence[Stratum], *, k: int, filtered: bool, label: str | None
) -> tuple[str, ...]:
    """Names of all strata that a query belongs to: all traffic, and every declared one that fits."""
    return (POOLED, *(one.name for one in strata if one.matches(k, filtered, label)))


def _parsed(name: str) -> Stratum:
    if name == "filtered":
        return Stratum(name, lambda _k, filtered, _label: filtered)
    if name == "unfiltered":
        return Stratum(name, lambda _k, filtered, _label: not filtered)
    if name.startswith(_LABEL) and len(name) > len(_LABEL):
        wanted = name[len(_LABEL) :]
        return Stratum(name, lambda _k, _filtered, label: label == wanted)
    found = _K.fullmatch(name)
    if found is not None:
        compare, bound = _COMPARISONS[found[1]], int(found[2])
        return Stratum(name, lambda k, _filtered, _label: compare(k, bound))
    raise ConfigurationError(
        f"the stratum {name!r} is not understood; write filtered, unfiltered, k<=10 "
        "(or <, >, >=, =) or label:NAME"
    )

"""``docs/performance.md``: tables from a run, and what bounds the figures in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.bounds import missed
from benchmarks.explained import EXPLAINED
from benchmarks.results import Figure, Reading, Results

__all__ = ["write_document"]

TITLES = {
    "reads": "Reads: both stores and the router",
    "mirror": "The router and the mirror",
    "wire": "PostgreSQL reads against their floors and the naive ways",
    "crossing": "Where an index begins to pay",
    "backfill": "Backfill",
    "writes": "Writes",
    "verify": "Verify",
    "gate": "The gate",
    "end to end": "A question end to end",
    "start": "Start",
    "growth": "Growth",
}

UNBOUNDED = "No other figure bounds it; its quartiles tell how sure it is"


def write_document(results: Results, path: Path) -> None:
    """Write the page from one run."""
    parts = [
        "# Performance",
        "",
        "Made by `python -m benchmarks.run --write-docs`; do not edit the tables. `make bench` measures "
        "the same in under ten minutes on two cores, `make bench-full` at larger sizes, in an hour. Absolute times "
        "belong to the machine below. Ratios are medians over rounds in which the sides alternated in "
        "one run, with quartiles: those are what to compare.",
        "",
        _environment(results),
        _answer(results),
    ]
    for part, title in TITLES.items():
        section = _section(results, part)
        if section:
            parts += [f"## {title}", "", *section, "", EXPLAINED[part], ""]
    parts += [_method()]
    path.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def _section(results: Results, part: str) -> list[str]:
    lines: list[str] = []
    readings = [reading for reading in results.readings if reading.part == part]
    for name, group in groupby(readings, key=lambda reading: reading.dataset):
        lines += [f"**{name}**", "", *_readings(list(group)), ""]
    if part == "growth":
        lines += [*_growth(results), ""]
    figures = [figure for figure in results.figures if figure.part == part]
    if figures:
        lines += [*_figures(figures), *_missed(figures)]
    return lines


def _missed(figures: Sequence[Figure]) -> list[str]:
    """For each target that was missed, what bounds it."""
    lines = [
        f"- {figure.name}: {_value(figure, figure.value)}. "
        + ("; ".join(f"*{one.name}* is {_spread(one)}" for one in bounds) or UNBOUNDED)
        + "."
        for figure, bounds in missed(figures)
    ]
    return ["", "Not met, and the figures that bound it:", "", *lines] if lines else []


def _spread(figure: Figure) -> str:
    found = _value(figure, figure.value)
    if figure.low is None or figure.high is None:
        return found
    return f"{found} ({_value(figure, figure.low)} to {_value(figure, figure.high)})"


def _readings(readings: Sequence[Reading]) -> list[str]:
    shows_recall = any(reading.recall is not None for reading in readings)
    rows = [
        (
            reading.side,
            _us(reading.p50_us),
            _us(reading.p99_us),
            f"{reading.per_s:,.0f}",
            *(("" if reading.recall is None else f"{reading.recall:.4f}",) if shows_recall else ()),
        )
        for reading in readings
    ]
    heads = ("side", "p50, us", "p99, us", "per second", *(("recall@10",) if shows_recall else ()))
    return _table(heads, rows, right=range(1, len(heads)))


def _figures(figures: Sequence[Figure]) -> list[str]:
    rows = [
        (
            figure.name,
            _value(figure, figure.value),
            ""
            if figure.low is None or figure.high is None
            else f"{_short(figure.low)} to {_short(figure.high)}",
            figure.target or "",
            {None: "", True: "yes", False: "**no**"}[figure.met],
        )
        for figure in figures
    ]
    return _table(("figure", "found", "quartiles", "target", "met"), rows, right=(1, 2))


def _growth(results: Results) -> list[str]:
    rows = [
        (
            one["over"],
            one["side"],
            ", ".join(f"{x:g}: {_us(us)}" for x, us in zip(one["x"], one["us"], strict=True)),
            "" if one["exponent"] is None else f"{one['exponent']:.2f}",
        )
        for one in results.growth
    ]
    return _table(("over", "side", "us", "exponent"), rows, right=(3,)) if rows else []


def _environment(results: Results) -> str:
    facts = results.environment
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    server = ", ".join(f"{name} {value}" for name, value in facts["server_settings"].items())
    return (
        f"Measured by `{facts['run']}` {facts['at']} on {facts['processor']}, {facts['cores']} cores, "
        f"{facts['memory_gb']} GB, {facts['system']}; Python {facts['python']}; {packages}; "
        f"PostgreSQL {facts['postgresql']} with pgvector {facts['pgvector']} ({server}), over TCP on "
        f"the same machine. Load before the run: {facts['load_1min_at_start']}. "
        f"Seeds: {facts['seeds']}.{_renewed(facts)}\n"
    )


def _renewed(facts: Mapping[str, Any]) -> str:
    parts = facts.get("renewed", {})
    if not parts:
        return ""
    return " Measured anew: " + ", ".join(f"{part} ({at})" for part, at in parts.items()) + "."


def _answer(results: Results) -> str:
    """Is PostgreSQL as fast as FAISS? With the run's own numbers."""
    lines = [
        "## Is PostgreSQL as fast as FAISS?",
        "",
        "Not with the same kind of search, and for most applications it does not matter. FAISS answers "
        "from the caller's own memory; PostgreSQL answers from another process, with durability, "
        "transactions, filters and every replica of the application seeing the same rows. Against a flat "
        "FAISS index, which is what many applications run, its HNSW index wins as soon as the rows are "
        "thousands. What a query takes at each size:",
        "",
    ]
    reads = [reading for reading in results.readings if reading.part == "reads"]
    rows = []
    for name, group in groupby(reads, key=lambda reading: reading.dataset):
        by_side = {reading.side: reading for reading in group}
        ours, theirs = by_side.get("FaissStore"), by_side.get("PostgresStore")
        if ours is None or theirs is None:
            continue
        graph = by_side.get("FaissStore, HNSW")
        rows.append(
            (
                name,
                _us(ours.p50_us),
                "" if graph is None else _us(graph.p50_us),
                _us(theirs.p50_us),
                f"{theirs.recall or 0:.4f}",
                f"{theirs.p50_us / ours.p50_us:.2g}x",
                f"{(theirs.p50_us - ours.p50_us) / 1e3:+.2f} ms",
            )
        )
    heads = ("data", "FAISS flat, us", "FAISS HNSW, us", "PostgreSQL, us", "recall@10",
             "PostgreSQL / flat", "difference")  # fmt: skip
    lines += _table(heads, rows, right=range(1, 7))
    asked = {r.side: r for r in results.readings if r.part == "end to end"}
    if "embedding + FAISS" in asked and "embedding + PostgreSQL" in asked:
        one, other = asked["embedding + FAISS"].p50_us, asked["embedding + PostgreSQL"].p50_us
        lines += [
            "",
            "Up to 1,000 rows PostgreSQL searches exactly; above that it uses an HNSW index, which is "
            "why it overtakes a flat FAISS index as the rows grow, at the recall shown. "
            f"End to end a question has to be embedded first: {one / 1e3:.1f} ms with FAISS, "
            f"{other / 1e3:.1f} ms with PostgreSQL ({other / one:.2f}x) with the small offline model, "
            "and with a model behind a network the difference is lost in its variation.",
        ]
    return "\n".join([*lines, ""])


def _method() -> str:
    return (
        "## How it is measured\n\n"
        "`benchmarks/interleave.py` runs the sides in turn in short blocks; a ratio is taken between "
        "blocks that ran one after the other. `benchmarks/datasets.py` states how rows are made around "
        "real-text embeddings. Recall is worked out from the data, not from the stores' scores, and a "
        "run in which a store answers wrongly ends with an error whatever its speed. A run can be held "
        "against an earlier one: `python -m benchmarks.run --compare benchmarks/results/FILE.json` "
        "calls a figure worse only if it moved by more than three standard errors and 3 %."
    )


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()
) -> list[str]:
    ends = set(right)
    rule = ["---:" if number in ends else "---" for number in range(len(heads))]
    return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]


def _us(us: float) -> str:
    return f"{us:,.1f}" if us < 100 else f"{us:,.0f}"


def _value(figure: Figure, value: float) -> str:
    return f"{_short(value)}x" if figure.unit == "x" else f"{_short(value)} {figure.unit}"


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"

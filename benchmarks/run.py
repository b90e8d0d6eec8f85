"""Measures the product and says what holds: ``python -m benchmarks.run [--quick | --full]``.

Exit code: 0 when every answer was right, 1 when a store's recall was below what it must be (a fast
wrong answer is no answer), 3 when ``--compare`` found a figure worse than noise explains, 2 for bad
use. Targets that are missed are shown as missed and do not change the exit code: they depend on the
machine. With ``--strict`` they do (4).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bench import SCALES, Bench, opened_bench
from benchmarks.bounds import missed
from benchmarks.chart import latency_chart
from benchmarks.comparing import Change, compare
from benchmarks.logs import log_to
from benchmarks.parts import PARTS
from benchmarks.results import Figure, Reading, Results, read_results

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"
WRONG, BAD_USE, WORSE, MISSED = 1, 2, 3, 4


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that are asked for; return the exit code."""
    options = _options(arguments)
    console = Console(highlight=False, width=150 if not sys.stdout.isatty() else None)
    before = read_results(options.compare) if options.compare else None
    whole = read_results(options.into) if options.into else None
    if options.from_file:
        results = read_results(options.from_file)
    else:
        results = _measure(options, console)
        if whole is not None:
            results = whole.renewed(results)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        path = options.output / f"{options.scale}-{stamp}.json"
        results.write(path)
        (options.output / "latency.svg").write_text(latency_chart(results), encoding="utf-8")
        console.print(f"written: {path} and latency.svg beside it")
    _show(results, console)
    if options.write_docs:
        from benchmarks.document import write_document

        write_document(results, DOCUMENT)
        console.print(f"written: {DOCUMENT}")
    changes: Sequence[Change] = compare(results, before) if before else []
    if before:
        _show_changes(changes, console)
    return _exit_code(results, changes, console, strict=options.strict)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scale = parser.add_mutually_exclusive_group()
    for name, words in (
        ("quick", "two small sizes: about a minute"),
        ("full", "also 100,000 x 1,536 and 1,000,000 x 384: an hour"),
    ):
        scale.add_argument(f"--{name}", dest="scale", action="store_const", const=name, help=words)
    parser.set_defaults(scale="core")
    parser.add_argument(
        "--part", action="append", choices=sorted(PARTS), help="only this part; may be repeated"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for JSON and SVG")
    parser.add_argument("--compare", type=Path, help="JSON of an earlier run to compare with")
    parser.add_argument(
        "--into",
        type=Path,
        help="JSON of an earlier run, whose parts are replaced by those measured now",
    )
    parser.add_argument("--dsn", help="a server to measure; default: one of its own")
    parser.add_argument("--strict", action="store_true", help="exit 4 if a target is missed")
    parser.add_argument("--write-docs", action="store_true", help=f"write {DOCUMENT.name}")
    parser.add_argument(
        "--from", dest="from_file", type=Path, help="show (and document) a stored run instead"
    )
    return parser.parse_args(arguments)


def _measure(options: argparse.Namespace, console: Console) -> Results:
    with opened_bench(SCALES[options.scale], console, options.dsn) as bench:
        log_to(bench.directory / "events.jsonl")
        for name, part in _chosen(options.part).items():
            started = time.perf_counter()
            part(bench)
            bench.say(f"{name}: {time.perf_counter() - started:.0f} s")
        return bench.results


def _chosen(names: list[str] | None) -> Mapping[str, Callable[[Bench], None]]:
    return {name: part for name, part in PARTS.items() if names is None or name in names}


def _show(results: Results, console: Console) -> None:
    facts = results.environment
    console.print(
        f"\n{facts['processor']}, {facts['cores']} cores, {facts['memory_gb']} GB; "
        f"PostgreSQL {facts['postgresql']}, pgvector {facts['pgvector']}; seeds: {facts['seeds']}; "
        f"load at the start {facts['load_1min_at_start']}"
    )
    readings = Table("part", "data", "side", "p50 us", "p99 us", "per s", "recall@10")
    for one in results.readings:
        readings.add_row(
            one.part, one.dataset, one.side, _number(one.p50_us), _number(one.p99_us),
            f"{one.per_s:,.0f}", _recall(one),
        )  # fmt: skip
    for column in readings.columns[3:]:
        column.justify = "right"
    console.print(readings)
    figures = Table("figure", "found", "quartiles", "target", "met")
    for figure in results.figures:
        figures.add_row(
            figure.name, _value(figure, figure.value), _spread(figure), figure.target or "",
            {None: "", True: "[green]yes[/green]", False: "[red]NO[/red]"}[figure.met],
        )  # fmt: skip
    console.print(figures)
    for figure, bounds in missed(results.figures):
        told = "; ".join(f"{one.name}: {_value(one, one.value)}" for one in bounds)
        console.print(f"[red]not met[/red] {figure.name}; bounded by {told or 'nothing measured'}")


def _show_changes(changes: Sequence[Change], console: Console) -> None:
    table = Table("figure", "before", "now", "verdict")
    for change in changes:
        table.add_row(change.name, f"{change.before:.3f}", f"{change.now:.3f}", change.verdict)
    console.print(table)


def _exit_code(
    results: Results, changes: Sequence[Change], console: Console, *, strict: bool
) -> int:
    for reading in results.wrong:
        console.print(
            f"[red]wrong answers[/red]: {reading.side} on {reading.dataset} has recall "
            f"{reading.recall:.4f}, at least {reading.recall_min} is needed"
        )
    if results.wrong:
        return WRONG
    if any(change.verdict == "worse" for change in changes):
        return WORSE
    if strict and any(figure.met is False for figure in results.figures):
        return MISSED
    return 0


def _recall(reading: Reading) -> str:
    if reading.recall is None:
        return ""
    text = f"{reading.recall:.4f}"
    return f"[red]{text}[/red]" if reading.wrong else text


def _number(us: float) -> str:
    return f"{us:,.1f}" if us < 1_000 else f"{us:,.0f}"


def _value(figure: Figure, value: float) -> str:
    if figure.unit == "x":
        return f"{value:,.3f}x" if value < 100 else f"{value:,.0f}x"
    return f"{value:,.3g} {figure.unit}"


def _spread(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{figure.low:,.3f} .. {figure.high:,.3f} ({figure.rounds})"


if __name__ == "__main__":
    sys.exit(main())

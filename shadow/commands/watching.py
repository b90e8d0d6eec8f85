"""`shadow status --watch`: the facts of the operators' page, in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shadow.actions import actions, may_flip
from shadow.commands.running import out
from shadow.load_clock import in_words
from shadow.progress import GrowthClock
from shadow.report import words
from shadow.report.collect import collect
from shadow.report.model import ParityReport

if TYPE_CHECKING:
    from shadow.opening import Migration

__all__ = ["render", "watch"]

INTERVAL_S = 1.0
TONES = {"pass": "bold green", "hold": "bold red", "undecided": "bold yellow"}
DECISIONS_SHOWN = 5
HINTS_SHOWN = 3
CAUSES_SHOWN = 4


def watch(
    migration: Migration,
    look: Callable[[], dict[str, Any]],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show where the migration stands, anew every second, until Ctrl-C.

    What is no terminal gets one rendering after the other, until it takes no more.
    """
    growth = GrowthClock()
    with _screen() as show:
        while True:
            found = look()
            server = found["server"]
            grown = server and growth.look(server["table_bytes"] + server["indexes_bytes"])
            show(render(found, collect(migration, subject=""), growth_bytes_per_h=grown))
            sleep(INTERVAL_S)


@contextmanager
def _screen() -> Iterator[Callable[[Group], None]]:
    if not out.is_terminal:
        yield out.print
        return
    with Live(console=out, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        yield lambda shown: live.update(shown, refresh=True)


def render(
    found: Mapping[str, Any],
    report: ParityReport,
    *,
    growth_bytes_per_h: float | None = None,
) -> Group:
    """One moment: the verdict and what is missing first, then figures, stores, server, decisions."""
    verdict = found["verdict"]
    parts: list[Any] = [
        Text.assemble((verdict.upper(), TONES[verdict]), "  ",
                      (may_flip(found, actions(found)), "bold")),
        Text(f"phase {found['phase']}: {found['primary']} answers; "
             f"wanted: {found['wanted']}, by {found['wanted_by']}"),
    ]  # fmt: skip
    # In a table, because lines by themselves are not wrapped here.
    told = (
        [("latched", f"{found['latch']}: `shadow rollback --clear-latch`")]
        if found["latch"]
        else []
    )
    told += [("open", sentence) for sentence in found["open"]]
    told += [("waiting for", sentence) for sentence in found["waiting_for"]]
    missing = _table()
    for name, sentence in told:
        missing.add_row(name, Text(sentence, style="bold red" if name == "latched" else ""))
    parts.append(missing)
    parts += [Text(""), _figures(found), Text(""), _stores(found, report), Text("")]
    parts += [_facts(found, report), Text("")]
    if found["server"] is not None:
        parts += [_server(found["server"], growth_bytes_per_h), Text("")]
    return Group(*parts, _decisions(report))


def _table(*columns: str, title: str | None = None) -> Table:
    return Table(*columns, title=title, title_justify="left", box=None, show_header=bool(columns),
                 pad_edge=False)  # fmt: skip


def _figures(found: Mapping[str, Any]) -> Table:
    table = _table("figure", "towards threshold", "bound", "mean", "threshold", "queries")
    for figure in found["figures"]:
        floor = max(0.0, 1 - 4 * (1 - figure["threshold"]))
        bound = figure["lower_bound"] if figure["queries"] else 0.0
        done = max(0.0, (bound - floor) / (figure["threshold"] - floor))
        table.add_row(
            Text(f"{figure['name']} ({figure['stratum']})"),
            ProgressBar(total=1.0, completed=min(done, 1.0), width=20),
            words.share(bound),
            words.share(figure["mean"]),
            f"{figure['threshold']:.4f}",
            f"{figure['queries']:,}",
        )
    return table


def _stores(found: Mapping[str, Any], report: ParityReport) -> Table:
    postgresql = found["stores"]["postgresql"]
    lag, share = postgresql["lag_entries"], found["postgresql_share"]
    health = {
        "faiss": "not followed" if found["phase"] == "final" else "up",
        "postgresql": postgresql["trouble"]
        or (postgresql["state"] if lag is None else f"{postgresql['state']}, {lag:,} behind"),
    }
    tails = {one.store: one.percentiles for one in report.latency}
    table = _table("store", "health", "reads", "p50", "p95", "p99")
    for store, part in (("faiss", 1 - share), ("postgresql", share)):
        of = tails.get(store)
        shown = (of.p50, of.p95, of.p99) if of else (None, None, None)
        table.add_row(
            words.store_name(store), Text(health[store]), f"{part:.0%}",
            *map(words.milliseconds, shown),
        )  # fmt: skip
    return table


def _facts(found: Mapping[str, Any], report: ParityReport) -> Table:
    journal, evidence, verify = found["journal"], found["evidence"], found["verify"]
    table = _table()
    causes = sorted(report.causes, key=lambda cause: -cause.count)[:CAUSES_SHOWN]
    rows = [
        ("mirror", f"{found['mirror_rate']:.0%}: {evidence['compared']:,} compared, "
                   f"{evidence['dropped']:,} dropped, {evidence['lost']:,} lost or under way"),
        ("diverged", ", ".join(f"{one.label} {one.count:,}" for one in causes) or "nothing"),
        ("journal", f"{journal['bytes'] / 1e6:.1f} of {journal['bytes_max'] / 1e6:,.0f} MB, "
                    f"head {journal['head']:,}"),
        ("snapshot", f"{words.age(found['stores']['faiss']['snapshot_age_s'])} old"),
        ("verify", "never" if verify is None else
         f"{verify['state']}, {verify['rows']:,} rows, {words.age(verify['age_s'])} ago"),
    ]  # fmt: skip
    if found["backfill"] is not None:
        rows.append(("backfill", in_words(found["backfill"])))
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def _server(server: Mapping[str, Any], growth_bytes_per_h: float | None) -> Table:
    growth = "growth not yet known"
    if growth_bytes_per_h is not None:
        growth = f"{growth_bytes_per_h / 1e6:+,.1f} MB an hour"
    table = _table()
    table.add_row("server", Text(
        f"table {server['table_bytes'] / 1e6:,.1f} MB, indexes {server['indexes_bytes'] / 1e6:,.1f} MB, "
        f"{growth}; {server['dead_rows']:,} dead rows, cache {words.percent(server['cache_hit_share'])}, "
        f"{server['connections']} of {server['connections_max']} connections"))  # fmt: skip
    if (build := server["build"]) is not None:
        done = build["done"] / build["total"] if build["total"] else 0.0
        table.add_row("index", Text(f"{build['phase']}, {done:.0%}"))
    for hint in server["hints"][:HINTS_SHOWN]:
        table.add_row("hint", Text(hint))
    return table


def _decisions(report: ParityReport) -> Table:
    table = _table("when", "who", "what", title="decisions")
    for entry in report.audit[:DECISIONS_SHOWN]:
        table.add_row(words.when(entry.at), Text(entry.who), Text(entry.what))
    return table

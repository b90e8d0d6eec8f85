"""`shadow status --watch`: the facts of the operators' page, in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shadow.commands.running import out
from shadow.load_clock import in_words

if TYPE_CHECKING:
    from shadow.opening import Migration

__all__ = ["render", "watch"]

INTERVAL_S = 1.0
TONES = {"pass": "bold green", "hold": "bold red", "undecided": "bold yellow"}
DECISIONS_SHOWN = 5


def watch(
    migration: Migration,
    look: Callable[[], dict[str, Any]],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show where the migration stands, anew every second, until Ctrl-C."""
    with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
        while True:
            live.update(render(look(), _decisions(migration)), refresh=True)
            sleep(INTERVAL_S)


def render(found: dict[str, Any], decisions: list[tuple[str, str, str]]) -> Group:
    """One moment: verdict, figures with bars, stores, what is missing, the latest decisions."""
    verdict = found["verdict"]
    head = Text.assemble(
        (verdict.upper(), TONES[verdict]),
        f"   phase {found['phase']}: {found['primary']} answers",
        f"   wanted: {found['wanted']}, by {found['wanted_by']}",
    )
    parts: list[Any] = [head, Text(""), _figures(found)]
    parts += [Text(f"  open: {sentence}") for sentence in found["open"]]
    parts += [Text(f"  waiting for: {sentence}") for sentence in found["waiting_for"]]
    if found["backfill"] is not None:
        parts.append(Text(f"  backfill: {in_words(found['backfill'])}"))
    if found["latch"]:
        parts.append(Text(f"  latched: {found['latch']}", style="bold red"))
    parts += [Text(""), _facts(found), Text("")]
    table = Table("when", "who", "what", title="decisions", title_justify="left", box=None)
    for row in decisions:
        table.add_row(*map(Text, row))
    return Group(*parts, table)


def _figures(found: dict[str, Any]) -> Table:
    table = Table("figure", "towards threshold", "bound", "mean", "threshold", "queries", box=None)
    for figure in found["figures"]:
        floor = max(0.0, 1 - 4 * (1 - figure["threshold"]))
        bound = figure["lower_bound"] if figure["queries"] else 0.0
        done = max(0.0, (bound - floor) / (figure["threshold"] - floor))
        table.add_row(
            Text(f"{figure['name']} ({figure['stratum']})"),
            ProgressBar(total=1.0, completed=min(done, 1.0), width=24),
            f"{bound:.4f}",
            "-" if figure["mean"] is None else f"{figure['mean']:.4f}",
            f"{figure['threshold']:.4f}",
            f"{figure['queries']:,}",
        )
    return table


def _facts(found: dict[str, Any]) -> Table:
    postgresql, journal = found["stores"]["postgresql"], found["journal"]
    evidence, verify = found["evidence"], found["verify"]
    lag = postgresql["lag_entries"]
    table = Table(box=None, show_header=False)
    for name, value in (
        ("postgresql", postgresql["trouble"] or postgresql["state"]),
        ("lag", "unknown" if lag is None else f"{lag:,} entries"),
        ("mirror", f"{found['mirror_rate']:.0%}: {evidence['compared']:,} compared, "
                   f"{evidence['dropped']:,} dropped, {evidence['lost']:,} lost or under way"),
        ("journal", f"{journal['bytes'] / 1e6:.1f} of {journal['bytes_max'] / 1e6:,.0f} MB, "
                    f"head {journal['head']:,}"),
        ("verify", "never" if verify is None else f"{verify['state']}, {verify['age_s']:.0f} s ago"),
    ):  # fmt: skip
        table.add_row(name, Text(str(value)))
    return table


def _decisions(migration: Migration) -> list[tuple[str, str, str]]:
    return [
        (time.strftime("%H:%M:%S", time.localtime(entry.at)), entry.who, entry.what)
        for entry in migration.routes.audit(limit=DECISIONS_SHOWN)
    ]

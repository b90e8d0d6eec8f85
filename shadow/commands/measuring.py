"""The commands that measure: replay, tune, doctor; and new-era and index, which follow from them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from shadow.commands.running import (
    HOLD,
    UNDECIDED,
    ConfigOption,
    JsonOption,
    err,
    migration,
    out,
    print_json,
    stop,
)
from vectorstore.errors import InvalidInput

if TYPE_CHECKING:
    from shadow.opening import Migration
    from shadow.replay import Embed
    from shadow.tuning import Tuned
    from vectorstore.types import Query

__all__ = ["doctor", "index", "new_era", "replay", "tune"]

FOUND = 3

FileArgument = Annotated[
    Path | None, typer.Argument(help="Queries: .npy (n, d), or .jsonl with vector or text.")
]
CapturedOption = Annotated[
    bool, typer.Option("--captured", help="Take the captured live queries (evidence.capture_max).")
]
KOption = Annotated[int, typer.Option("-k", min=1, max=1000, help="k where a file does not say.")]
EmbedderOption = Annotated[
    str | None, typer.Option("--embedder", help="Entry point that embeds the texts of a file.")
]


def new_era(
    reason: Annotated[str, typer.Argument(help="Why, for the audit log and the report.")],
    config: ConfigOption = None,
) -> None:
    """Count the evidence anew: after an outage was mended, old misses and the alarm hold no longer.

    What changes answers (index, settings, model, thresholds) opens an era by itself. The gate's promise
    is per era, so each one more adds its risk of a false pass to the sum that the report prints.
    """
    from shadow.opening import who

    if not reason.strip():
        raise typer.BadParameter("say why", param_hint="REASON")
    with migration(config) as opened:
        era = opened.evidence.begin_era(why=f"by hand: {reason}")
        opened.routes.note(who=who("new-era"), what="new era", why=reason)
    out.print(f"era {era.number} has begun; evidence is counted anew", markup=False)


def replay(
    file: FileArgument = None,
    config: ConfigOption = None,
    captured: CapturedOption = False,
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="Queries under way at the same time.")
    ] = 1,
    k: KOption = 10,
    embedder: EmbedderOption = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of the report; default: replay/ in the state directory."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run queries against both stores now and write a parity report on them.

    For traffic too thin to wait for. The evidence is kept apart from the live one and flips nothing.
    Exit code 0: these queries would pass. 3: they would not. 4: there are too few of them. 1: not run, and
    why: so before PostgreSQL holds a complete copy, and once the migration is final.
    """
    from shadow.core.phases import POSTGRESQL
    from shadow.evidence_view import REPLAY
    from shadow.replay import replay as run
    from shadow.report import to_json, write_report
    from shadow.report.collect import collect
    from shadow.report.words import headline

    with migration(config) as opened:
        queries = queries_from(opened, file, captured=captured, k=k, embedder=embedder)
        done = run(opened, queries, concurrency=concurrency)
        opened.postgresql.look()
        opened.lag.refresh()
        found = collect(opened, subject="replayed queries", source=REPLAY)
        folder = directory or opened.settings.state_directory / "replay"
        paths = write_report(found, folder)
        causes = opened.evidence.causes(done.era, POSTGRESQL, source=REPLAY)
    if as_json:
        typer.echo(to_json(found))
    else:
        out.print(headline(found), markup=False)
        for sentence in (*found.reasons, *found.needs):
            out.print(f"  - {sentence}", markup=False)
        missed = ", ".join(f"{n:,} {cause}" for cause, n in causes.items()) or "none"
        out.print(f"misses: {missed}; {done.queries / max(done.seconds, 1e-9):,.0f} queries/s")
        out.print(f"report: {paths.html}", markup=False)
    code = {"pass": 0, "hold": HOLD, "undecided": UNDECIDED}[found.verdict]
    if code:
        raise typer.Exit(code)


def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Look for the traps that this migration's users fall into, on the live pair of stores.

    Each finding comes with its evidence and the fix. Exit code 0: no warning and no fault. 3: some were
    found. Notes alone do not count. Reads only, and builds nothing.
    """
    from shadow.doctor import examine
    from shadow.doctor.finding import Severity
    from shadow.doctor.subject import subject_of

    with migration(config) as opened:
        findings = examine(subject_of(opened))
    serious = [one for one in findings if one.severity is not Severity.NOTE]
    if as_json:
        print_json({"findings": [one.as_dict() for one in findings], "serious": len(serious)})
    else:
        for one in findings:
            out.print(
                f"{one.severity.value:<8} {one.name} (trap {one.trap}): {one.what}", markup=False
            )
            for line in one.evidence:
                out.print(f"           {line}", markup=False)
            out.print(f"         fix: {one.fix}", markup=False)
        out.print(
            f"findings: {len(findings)}, serious: {len(serious)}" if findings else "no trap found"
        )
    if serious:
        raise typer.Exit(FOUND)


def tune(
    file: FileArgument = None,
    config: ConfigOption = None,
    captured: CapturedOption = False,
    k: KOption = 10,
    embedder: EmbedderOption = None,
    svg: Annotated[
        Path | None,
        typer.Option(help="File for the chart; default: frontier.svg in the state directory."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write what is proposed into the configuration file.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure recall against latency for many ways to search, and propose the cheapest good one.

    Works on a copy of the table, made and dropped in the database: it needs the room, and takes as long
    as building four indexes. Half of the queries choose, the other half confirms. Exit code 3: nothing
    met the thresholds. What is written takes effect when routers start, after `shadow index`.
    """
    from dataclasses import asdict

    from shadow.config_sources import CONFIG_DEFAULT, config_file
    from shadow.opening import who
    from shadow.tuning import tune as run
    from shadow.tuning_output import (
        chart,
        require_writable,
        settings_of,
        write_settings,
    )

    with migration(config) as opened:
        gate = opened.settings.gate
        target = config_file(config, os.environ) or CONFIG_DEFAULT
        path = svg or opened.settings.state_directory / "frontier.svg"
        for file_written in (path, target) if write else (path,):
            # Not after minutes of measuring.
            require_writable(file_written)
        queries = queries_from(opened, file, captured=captured, k=k, embedder=embedder)
        tuned = run(
            opened.link.open(),
            queries,
            recall_min=gate.exact_recall_min or gate.recall_min,
            latency_budget_ms=gate.latency_budget_ms,
            on_step=lambda step: err.print(step, markup=False),
        )
        values = settings_of(tuned.proposed.candidate, rows=tuned.rows) if tuned.proposed else {}
        # Before anything is written: a file that cannot be must not cost what took minutes to measure.
        if as_json:
            print_json(
                {
                    "frontier": [asdict(one) for one in tuned.frontier],
                    "confirmed": [asdict(one) for one in tuned.confirmed],
                    "proposed": dict(values) or None,
                }
            )
        else:
            _print_tuned(tuned, values)
        path.write_text(chart(tuned), encoding="utf-8")
        if not as_json:
            out.print(f"chart: {path}", markup=False)
        if write and values:
            write_settings(target, values)
            opened.routes.note(who=who("tune"), what="settings written", why=str(dict(values)))
    if not values:
        stop("no way to search met the thresholds on both halves of the queries", code=HOLD)


def _print_tuned(tuned: Tuned, values: Mapping[str, str | int]) -> None:
    from shadow.tuning_output import rows

    table = Table("way to search", "recall", "confirmed", "p50 ms", "p95 ms", "")
    for row in rows(tuned):
        table.add_row(*row)
    out.print(table)
    for key, value in values.items():
        out.print(f"  postgresql.{key} = {value}", markup=False)


def index(
    config: ConfigOption = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build it anew although it fits the settings.")
    ] = False,
) -> None:
    """Build the index that the settings ask for, while reads and writes go on.

    One that fits is left alone. Until a new one is ready, queries are answered exactly.
    """
    from vectorstore.postgres.index import drop_index, ensure_index

    with migration(config) as opened:
        store = opened.link.open()
        if rebuild:
            drop_index(store)
        built = ensure_index(
            store, on_progress=lambda at: err.print(f"{at.phase}: {at.done:,} of {at.total:,}")
        )
        rows = store.count()
    limit = store.settings.exact_rows_max
    out.print(
        "the index is there and valid"
        if built
        else f"no index: {rows:,} rows are searched exactly (postgresql.exact_rows_max is {limit:,})"
    )


def queries_from(
    opened: Migration, file: Path | None, *, captured: bool, k: int, embedder: str | None
) -> list[Query]:
    """The queries of a file or of the capture; InvalidInput if neither or both are asked for."""
    from shadow.captures import CaptureBook
    from shadow.replay import queries_of_file

    if (file is None) != captured:
        raise InvalidInput("give a file of queries, or --captured, and not both")
    if file is not None:
        return queries_of_file(file, k=k, embed=_embed(embedder) if embedder else None)
    settings = opened.settings.evidence
    if settings.capture_max == 0:
        raise InvalidInput("nothing is captured: set evidence.capture_max and let traffic pass")
    book = CaptureBook(opened.settings.state_directory.absolute(), settings)
    try:
        queries = book.queries()
    finally:
        book.close()
    if not queries:
        raise InvalidInput("no query has been captured yet, or all have expired")
    err.print(f"{len(queries):,} captured queries")
    return queries


def _embed(name: str) -> Embed:
    def embed(texts: Sequence[str]) -> Any:
        from shadow.embedders import embedder_named

        with embedder_named(name) as embedder:
            return embedder.embed(texts)

    return embed

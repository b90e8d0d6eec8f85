"""The commands that move and check data: init, backfill, verify."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shadow.commands.running import (
    FAILED,
    HOLD,
    ConfigOption,
    JsonOption,
    err,
    errors_in_words,
    migration,
    out,
    print_json,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from shadow.opening import Migration
    from shadow.writes.verify import Verified
    from vectorstore.digests import DigestMethod
    from vectorstore.postgres.settings import PostgresSettings

__all__ = ["backfill", "init", "verify"]


def init(
    admin_dsn: Annotated[
        str,
        typer.Argument(
            envvar="ADMIN_DATABASE_URL", help="DSN of a role that may create roles and databases."
        ),
    ],
    role: Annotated[str, typer.Option(help="Role that the router will use.")] = "shadow",
    database: Annotated[str, typer.Option(help="Database to make.")] = "shadow",
    schema: Annotated[str | None, typer.Option(help="Schema to make; default: public.")] = None,
) -> None:
    """Make role, database, schema and the vector extension on your server, and print the DSN.

    Put what it prints into DATABASE_URL. Running it again repairs what is missing and gives the role a
    new password. Without a server of your own, leave DATABASE_URL unset: the packaged one is used.
    """
    from vectorstore.postgres.provision import provision

    with errors_in_words():
        dsn = provision(admin_dsn, role=role, database=database, schema=schema)
        out.print(dsn, markup=False)


def backfill(
    config: ConfigOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Processes that copy; default: one less than there are cores, 1 to 4.",
        ),
    ] = None,
    rows_per_s: Annotated[
        float | None,
        typer.Option(min=1.0, help="Copy no faster than this; default: as fast as it goes."),
    ] = None,
    p99_ms_max: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Copy less of the time while the 99th percentile of recent reads is above this, ms.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy every record into PostgreSQL, while the application goes on reading and writing.

    Starts from a verified FAISS snapshot; PostgreSQL then catches up from the journal. If it is
    interrupted, run it again: it goes on after the last block that was committed. When it is done,
    queries are mirrored and evidence begins to gather.

    A table of that name which holds anything else than a copy of this migration's journal is left alone
    (exit code 2).

    What copies runs at a low priority. With --p99-ms-max it also asks the running routers what their
    reads take, and backs off to a trickle while that is more; it never stops for good.
    """
    from shadow.opening import who
    from shadow.read_latency import recent_reads
    from shadow.writes.backfill import backfill as run
    from shadow.writes.load_workers import default_workers
    from shadow.writes.ownership import require_own_table
    from shadow.writes.pace import Pace
    from vectorstore.errors import StoreCorrupt

    with migration(config) as opened, _progress() as progress:
        task = progress.add_task("copying rows", total=None)
        index = progress.add_task("building the index", total=None, visible=False)
        pace = Pace(
            rows_per_s_max=rows_per_s,
            p99_ms_max=p99_ms_max,
            reads=lambda: recent_reads(opened.directory),
        )

        def rows_done(done: int, total: int) -> None:
            how = "" if pace.share == 1.0 else f", {pace.share:.0%} of the time: reads are slow"
            if pace.asks and not pace.heard:
                how = ", at full speed: no router has told what its reads take"
            progress.update(task, completed=done, total=total, description=f"copying rows{how}")

        def index_done(at: Any) -> None:
            progress.update(
                index, visible=True, completed=at.done, total=at.total or None, description=at.phase
            )

        store = opened.link.open()
        require_own_table(opened.directory, opened.journal, store)
        _warn_of_memory(store.settings, opened.snapshots.newest_rows())
        result = run(
            directory=opened.directory,
            journal=opened.journal,
            snapshots=opened.snapshots,
            store=store,
            current=lambda: opened.load_faiss().store,
            workers=default_workers() if workers is None else workers,
            pace=pace,
            backups_kept=opened.settings.journal.backups_kept,
            on_rows=rows_done,
            on_index=index_done,
        )
        progress.update(task, completed=result.rows, total=result.rows)
        opened.postgresql.follow()
        with suppress(StoreCorrupt):
            # Of a snapshot that cannot be read any more, whoever has FAISS loaded tells what it is.
            opened.look_at_era(opened.snapshots.newest_settings())
        opened.routes.note(
            who=who("backfill"),
            what="backfilled",
            why=f"{result.rows} rows, snapshot at {result.seq}",
        )
        opened.cutover.step(who=who("backfill"))
    if as_json:
        print_json({"rows": result.rows, "seq": result.seq, "resumed_at": result.resumed_at,
                    "seconds": round(result.seconds, 3),
                    "copying_s": round(result.copying_s, 3)})  # fmt: skip
        return
    rate = (result.rows - result.resumed_at) / max(result.copying_s, 1e-9)
    again = f" (went on after row {result.resumed_at:,})" if result.resumed_at else ""
    out.print(
        f"PostgreSQL holds {result.rows:,} rows as of write {result.seq}{again}: "
        f"{result.seconds:.1f} s, of which {result.copying_s:.1f} s for copying, {rate:,.0f} rows/s. "
        "Next: shadow verify"
    )


def verify(
    config: ConfigOption = None,
    method: Annotated[
        str | None,
        typer.Option(help="crc32c, md5 or sha256; default: the fastest that the server has."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that both stores hold the same: ids, versions, vectors bit for bit, texts, metadata.

    Exit code 0: the same. 3: rows differ; they are listed. 1: could not check, and why: so
    before there is a complete copy, and once the migration is final.
    """
    from shadow.verification import nothing_to_compare, verification_of
    from shadow.writes.verify import Clean, Differs
    from vectorstore.digests import METHODS
    from vectorstore.errors import InvalidInput

    with migration(config) as opened, _progress() as progress:
        if method is not None and method not in METHODS:
            raise InvalidInput(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
        copy = opened.copy()
        unasked = nothing_to_compare(opened)
        result = _compared(opened, method, progress) if unasked is None else unasked
        differing = result.ids if isinstance(result, Differs) else ()
        kept = verification_of(result, at=time.time(), copy=copy)
        if unasked is None:
            opened.evidence.record_verification(kept)
        state, detail = kept.state, kept.detail
    if as_json:
        print_json({"state": state, "rows": result.rows, "differing": list(differing),
                    "method": result.method, "detail": detail})  # fmt: skip
    elif isinstance(result, Clean):
        out.print(f"clean: both stores hold the same {result.rows:,} rows ({result.method})")
    else:
        err.print(f"{state}: {detail}", markup=False)
    if not isinstance(result, Clean):
        raise typer.Exit(HOLD if isinstance(result, Differs) else FAILED)


def _compared(opened: Migration, method: DigestMethod | None, progress: Progress) -> Verified:
    from shadow.writes.verify import verify as run

    task = progress.add_task("comparing rows", total=None)
    faiss = opened.load_faiss()
    return run(
        faiss=faiss,
        postgresql=opened.link.open(),
        method=method,
        on_rows=lambda done, total: progress.update(task, completed=done, total=total),
    )


def _warn_of_memory(settings: PostgresSettings, rows: int) -> None:
    """Say before the long part begins that the index's graph will not fit."""
    from vectorstore.postgres.index import graph_memory

    memory = graph_memory(settings, rows)
    if settings.indexable and rows > settings.exact_rows_max and not memory.fits:
        err.print(
            f"the index over {rows:,} rows takes about {memory.needed / 2**20:,.0f} MB to build and "
            f"postgresql.maintenance_work_mem is {settings.maintenance_work_mem}: the build will take "
            "several times as long. Raise it if the server has the memory"
        )


def _progress() -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=False,
    )

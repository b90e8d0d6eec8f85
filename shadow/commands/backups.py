"""The commands of backups: backup, backups, restore."""

from __future__ import annotations

from typing import Annotated

import typer

from shadow.commands.running import (
    FAILED,
    ConfigOption,
    JsonOption,
    err,
    errors_in_words,
    migration,
    out,
    print_json,
    settings_from,
)

__all__ = ["backup", "backups", "restore"]


def backup(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Back up the whole migration while everything goes on: FAISS snapshot, journal, PostgreSQL's rows.

    Writes a folder named by the moment (UTC) under backups/ in the state directory, with a checksum of
    every file, and removes the oldest beyond journal.backups_kept. Copy the folder to another machine.
    """
    from shadow.backups.taking import take_backup

    with migration(config) as opened:
        made = take_backup(
            directory=opened.directory,
            journal=opened.journal,
            snapshots=opened.snapshots,
            kept=opened.settings.journal.backups_kept,
            postgresql=opened.link.open,
        )
        path = opened.directory / "backups" / made.timestamp
    rows = None if made.postgresql is None else made.postgresql.rows
    if as_json:
        print_json({"timestamp": made.timestamp, "path": str(path), "head": made.head,
                    "bytes": made.size_bytes, "postgresql_rows": rows})  # fmt: skip
        return
    out.print(
        f"{path}: everything up to write {made.head:,}, {made.size_bytes / 1e6:,.1f} MB",
        markup=False,
    )
    if rows is None:
        err.print(
            f"without PostgreSQL's rows, which a backfill can make again: {made.without_rows}",
            markup=False,
        )


def backups(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the backups, newest first: when each was made, up to which write, how large, and why.

    `shadow restore TIMESTAMP` goes back to one of them; `shadow rollback` is something else.
    """
    from shadow.backups.loss import moment
    from shadow.backups.shelf import BackupShelf

    with errors_in_words():
        found = BackupShelf(settings_from(config).state_directory.absolute()).manifests()
    if as_json:
        print_json(
            {
                "backups": [
                    {"timestamp": one.timestamp, "kind": one.kind, "head": one.head,
                     "bytes": one.size_bytes,
                     "postgresql_rows": one.postgresql and one.postgresql.rows}
                    for one in found
                ]
            }
        )  # fmt: skip
        return
    for one in found:
        rows = "no rows" if one.postgresql is None else f"{one.postgresql.rows:,} rows"
        out.print(
            f"{one.timestamp}  {moment(one.made_at)}  write {one.head:,}  {one.kind}, {rows}, "
            f"{one.size_bytes / 1e6:,.1f} MB",
            markup=False,
        )
    if not found:
        out.print("there are no backups: make one with `shadow backup`")


def restore(
    timestamp: Annotated[str, typer.Argument(help="Which backup, as `shadow backups` lists it.")],
    config: ConfigOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask: lose what came after the backup.")
    ] = False,
) -> None:
    """Go back to a moment in the past and LOSE what was written after it.

    To make FAISS the primary again without losing anything, there is `shadow rollback`. Stop every
    process of the application first. What is lost is stated before you are asked. FAISS answers
    afterwards; what was there before is kept in replaced/ in the state directory.

    PostgreSQL's rows go back too. Where its table follows a journal that is not in the state directory,
    this is said and asked, also with --yes. To try a restore, give it another table (docs/backups.md).
    """
    from shadow.backups.loss import Loss
    from shadow.backups.restoring import restore as run
    from shadow.opening import who

    def consent(loss: Loss) -> bool:
        err.print(loss.sentence, markup=False)
        # --yes is for the state directory that it is given for, not for a table that another may use.
        return (yes and not loss.unknown_table) or typer.confirm(f"Go back to {timestamp}?")

    with errors_in_words():
        done = run(settings_from(config), timestamp, who=who("restore"), consent=consent)
    if done is None:
        err.print("nothing was changed")
        raise typer.Exit(FAILED)
    out.print(
        f"FAISS and the journal are back at write {done.head:,} of {done.timestamp}, as a new history. "
        f"PostgreSQL: {done.postgresql}. The state from before is in {done.replaced}",
        markup=False,
    )

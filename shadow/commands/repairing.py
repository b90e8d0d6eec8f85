"""The command that puts damaged records right."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from shadow.commands.running import (
    FAILED,
    HOLD,
    ConfigOption,
    JsonOption,
    errors_in_words,
    migration,
    out,
    print_json,
    stop,
)

__all__ = ["repair"]

MEANINGS = {
    "faiss": "put right in FAISS",
    "postgresql": "put right in PostgreSQL",
    "undecided": "left alone, because neither the journal nor the versions tell (give --from)",
    "unsettled": "written to over and over meanwhile; try again",
}


def repair(
    ids: Annotated[
        list[str] | None,
        typer.Argument(help="Ids to put right; default: those that a verify finds now."),
    ] = None,
    config: ConfigOption = None,
    truth_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="faiss or postgresql: which is right where neither the journal nor the versions tell.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put records that differ right, in the damaged store only, at their own place in the journal.

    Right is what the journal still holds of a record, else the later version, else what the store named
    by --from holds; without that the record is left alone and listed. Extra rows are deleted in the same
    way. A verify follows. Exit code 0: both stores are the same. 3: rows still differ. 1: could not check.
    Refused before there is a complete copy and once the migration is final: nothing is damaged then.
    """
    from shadow.opening import who
    from shadow.verification import IDS_SHOWN, nothing_to_compare, verification_of
    from shadow.writes.backfill import alone
    from shadow.writes.repair import StoreName
    from shadow.writes.repair import repair as run
    from shadow.writes.verify import Clean, CouldNotCheck, Differs
    from shadow.writes.verify import verify as look
    from vectorstore.errors import InvalidInput

    names: dict[str | None, StoreName | None] = {
        None: None, "faiss": "faiss", "postgresql": "postgresql"
    }  # fmt: skip
    if truth_from not in names:
        with errors_in_words():
            raise InvalidInput(f"--from is {truth_from!r}; it must be faiss or postgresql")
    with migration(config) as opened, alone(opened.directory):
        if (refused := nothing_to_compare(opened)) is not None:
            stop(f"could not check: {refused.why}", code=FAILED)
        opened.snapshots.finish_put_right()
        faiss, postgresql = opened.load_faiss(), opened.link.open()
        if not ids:
            found = look(faiss=faiss, postgresql=postgresql)
            ids = list(found.ids) if isinstance(found, Differs) else []
        copy_in_memory = faiss.store
        done = run(
            ids,
            journal=opened.journal,
            faiss=faiss,
            postgresql=postgresql,
            truth_from=names[truth_from],
        )
        if done.faiss:
            opened.snapshots.put_right(faiss, copy_in_memory)
        if done.faiss or done.postgresql:
            opened.routes.note(
                who=who("repair"),
                what="repaired",
                why=f"{len(done.faiss)} records in FAISS, {len(done.postgresql)} in PostgreSQL",
                evidence={"faiss": list(done.faiss), "postgresql": list(done.postgresql)},
            )
        copy = opened.copy()
        result = look(faiss=faiss, postgresql=postgresql)
        kept = verification_of(result, at=time.time(), copy=copy)
        opened.evidence.record_verification(kept)
    if as_json:
        print_json({**asdict(done), "state": kept.state})
    else:
        for name in ("faiss", "postgresql", "undecided", "unsettled"):
            if touched := getattr(done, name):
                shown = ", ".join(touched[:IDS_SHOWN])
                out.print(f"{MEANINGS[name]}: {len(touched):,} ({shown})", markup=False)
        out.print(f"verify: {kept.state}")
    if not isinstance(result, Clean):
        raise typer.Exit(FAILED if isinstance(result, CouldNotCheck) else HOLD)

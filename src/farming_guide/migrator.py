"""The FAISS-only bot's one-shot migration: copy everything while nobody writes, check it, keep the files.

For a bot that must not stop, use the router (``shadow --help``): it copies under live writes and shows
that answers stay as good. This class is for scripts that were written for the old interface.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from farming_guide.ingestion import all_records
from farming_guide.settings import BotSettings, load_settings
from farming_guide.wiring import open_backend
from vectorstore.canonical import canonical_json
from vectorstore.errors import ConfigurationError, InvalidInput, StoreCorrupt, VectorStoreError
from vectorstore.port import VectorStore
from vectorstore.postgres.loading import begin_load, finish_load, load_block
from vectorstore.postgres.store import PostgresStore

__all__ = ["DatabaseMigrator"]

STORAGE_PATH = "data/vector_db"
BLOCK_RECORDS = 32
INCARNATION = "one-shot-copy"
TIMESTAMP = "%Y%m%d_%H%M%S"


class DatabaseMigrator:
    """Copies a FAISS knowledge base into PostgreSQL, vectors bit for bit, and can restore its files."""

    def __init__(
        self, backup_path: str = "backups/migration", *, settings: BotSettings | None = None
    ) -> None:
        self._backups = Path(backup_path)
        self._settings = settings or load_settings()

    def get_migration_status(self, faiss_storage_path: str = STORAGE_PATH) -> dict[str, Any]:
        """Which of the two is there, how many vectors each holds, and what was in the way."""
        status: dict[str, Any] = {
            "faiss_available": False,
            "postgresql_available": False,
            "faiss_vector_count": 0,
            "postgresql_vector_count": 0,
            "migration_recommended": False,
            "backups": [path.name.removeprefix("faiss_backup_") for path in self._kept()],
        }
        dimension = 1
        try:
            intake = self._taken_in(Path(faiss_storage_path), self._backups / "status")
            dimension = intake.dimension
            status.update(faiss_available=True, faiss_vector_count=intake.count())
        except VectorStoreError as error:
            status["faiss_problem"] = str(error)
        finally:
            shutil.rmtree(self._backups / "status", ignore_errors=True)
        if status["faiss_available"]:
            try:
                store = open_backend(self._settings, dimension, name="postgresql").store
                status.update(postgresql_available=True, postgresql_vector_count=store.count())
                store.close()
            except VectorStoreError as error:
                status["postgresql_problem"] = str(error)
        status["migration_recommended"] = (
            status["postgresql_available"]
            and status["faiss_vector_count"] > 0
            and status["postgresql_vector_count"] == 0
        )
        return status

    def migrate_faiss_to_postgresql(
        self,
        faiss_storage_path: str = STORAGE_PATH,
        postgresql_params: dict[str, Any] | None = None,
    ) -> bool:
        """Back up, copy and compare every record; True, or an error that says what to do.

        ``postgresql_params``: ``database_url`` and ``table_name``. The table must be empty or hold an
        earlier, unfinished run of this copy; anything else is refused and left alone.
        """
        backup = self._backups / f"faiss_backup_{datetime.now().strftime(TIMESTAMP)}"
        faiss = self._taken_in(Path(faiss_storage_path), backup)
        store = open_backend(
            self._settings, faiss.dimension, name="postgresql", **(postgresql_params or {})
        ).store
        if not isinstance(store, PostgresStore):
            raise ConfigurationError(
                "the backend 'postgresql' is not this project's PostgreSQL store"
            )
        try:
            _refuse_other_metric(faiss, store)
            cursor = store.cursor()
            if cursor.state != "final" and cursor.incarnation not in ("", INCARNATION):
                raise ConfigurationError(
                    "the table belongs to a migration by the router: finish it there, or name another "
                    "table with postgresql_params={'table_name': ...}"
                )
            if cursor.state != "final":
                _load(faiss, store)
            _compare(faiss, store)
        finally:
            store.close()
        return True

    def rollback_migration(
        self, backup_timestamp: str, faiss_storage_path: str = STORAGE_PATH
    ) -> bool:
        """Put the backed-up files back; what is in their place is set aside, not deleted."""
        backup = self._backups / f"faiss_backup_{backup_timestamp}"
        if not backup.is_dir():
            kept = ", ".join(p.name.removeprefix("faiss_backup_") for p in self._kept()) or "none"
            raise ConfigurationError(f"there is no backup {backup_timestamp!r}; there are: {kept}")
        target = Path(faiss_storage_path)
        aside = target.with_name(f"{target.name}.before_rollback_{datetime.now():{TIMESTAMP}}")
        restored = target.with_name(f"{target.name}.restoring")
        shutil.rmtree(restored, ignore_errors=True)
        shutil.copytree(backup, restored)
        if target.exists():
            target.rename(aside)
        restored.rename(target)
        return True

    def _kept(self) -> list[Path]:
        return sorted(self._backups.glob("faiss_backup_*"))

    def _taken_in(self, source: Path, copy_to: Path) -> VectorStore:
        # FAISS is imported only by what needs it, so that the bot runs where it is not installed.
        from vectorstore.faiss.intake import take_in

        return take_in(source, copy_to=copy_to).store


def _load(faiss: VectorStore, store: PostgresStore) -> None:
    """Copy every record as it is: a plain write would scale vectors to unit length once more."""
    begin_load(store, incarnation=INCARNATION, snapshot_id=INCARNATION, seq=0, own=(INCARNATION,))
    position, after = 0, ""
    while block := faiss.scan(after=after, limit=BLOCK_RECORDS):
        end = position + len(block)
        load_block(store, block, position_start=position, position_end=end)
        position, after = end, block[-1].id
    finish_load(store)
    store.finalize()


def _compare(faiss: VectorStore, store: VectorStore) -> None:
    if faiss.count() != store.count():
        raise ConfigurationError(
            f"the table already holds other records ({store.count():,}, the index {faiss.count():,}): "
            "name an empty table with postgresql_params={'table_name': ...}"
        )
    for one, other in zip(all_records(faiss), all_records(store), strict=True):
        same = (
            one.id == other.id
            and one.text == other.text
            and np.array_equal(one.embedding, other.embedding)
            and canonical_json(one.metadata) == canonical_json(other.metadata)
        )
        if not same:
            raise StoreCorrupt(
                f"record {one.id!r} of the table is not the index's: name an empty table and run the "
                "copy again; if it differs again, report it with this id"
            )


def _refuse_other_metric(faiss: VectorStore, store: VectorStore) -> None:
    if faiss.metric is not store.metric:
        raise InvalidInput(
            f"the index ranks by {faiss.metric.value}, the table by {store.metric.value}: move it "
            "with the router, which keeps the metric"
        )

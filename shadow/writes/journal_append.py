"""Appending: batches of several threads in one durable transaction, each with its own outcome."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shadow.errors import ForeignIncarnation, JournalBusy, JournalFull, JournalSealed
from shadow.writes.checkpointer import Checkpointer
from shadow.writes.group_commit import GroupCommit
from shadow.writes.journal_entry import EntryRow, batch_digest, row_of, vector_of
from shadow.writes.journal_file import PAGE_SIZE_BYTES, JournalFile
from vectorstore.errors import ConfigurationError, InvalidInput, VectorStoreError
from vectorstore.types import Change, Metric, Record
from vectorstore.validation import check_batch, check_id, check_text, encoded_record

__all__ = ["Appended", "Appender", "oldest_holder"]

OPERATION_SECONDS = 24 * 3600
OPERATION_ID_CHARS_MAX = 200
ROOM_AGE_S_MAX = 0.25
ROOM_SHARE_MAX = 0.1


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a batch stands in the journal; ``replayed`` if an earlier call had put it there."""

    first_seq: int
    last_seq: int
    replayed: bool = False


class _Batch(NamedTuple):
    """One caller's append, encoded before it queues so that a bad one never reaches a transaction."""

    changes: list[tuple[str, Record | None]]
    rows: list[EntryRow]
    size_bytes: int
    op_id: str | None
    digest: bytes


class Appender:
    """Appends to one journal file.

    ``incarnation`` is the history that it appends to; ``vectors`` says what they are, None until the
    journal is bound; ``mark`` is the one that its entries carry; ``on_commit``: see ``Journal.on_commit``.
    """

    def __init__(
        self,
        file: JournalFile,
        checkpointer: Checkpointer,
        *,
        incarnation: str,
        vectors: tuple[int, Metric] | None,
        size_bytes_max: int,
        clock: Callable[[], float],
    ) -> None:
        self._file = file
        self._checkpointer = checkpointer
        self._size_bytes_max = size_bytes_max
        self.incarnation = incarnation
        self.vectors = vectors
        self.clock = clock
        self.mark = secrets.randbits(63)
        # Guarded by the file's write lock.
        self._free_bytes = 0
        self._asked_at = -ROOM_AGE_S_MAX
        self.on_commit: Callable[[Sequence[Change]], None] | None = None
        self._group: GroupCommit[_Batch, Appended] = GroupCommit(self._commit, self._committed)

    def append(self, changes: Sequence[tuple[str, Record | None]], op_id: str | None) -> Appended:
        """See ``Journal.append``."""
        return self._group.submit(self._batch(changes, op_id))

    def _batch(self, changes: Sequence[tuple[str, Record | None]], op_id: str | None) -> _Batch:
        if self.vectors is None:
            raise ConfigurationError("the journal was not told what its vectors are: call bind")
        if not changes:
            raise InvalidInput("there is nothing to append: the batch is empty")
        check_batch(changes)
        if op_id is not None:
            _check_operation(op_id)
        dimension, metric = self.vectors
        ready: list[tuple[str, Record | None]] = []
        rows: list[EntryRow] = []
        size_bytes = 0
        for name, given in changes:
            if given is None:
                ready.append((check_id(name), None))
                row = EntryRow(name, None, None, None)
            elif given.id != name:
                raise InvalidInput(f"the change of {name!r} carries the record {given.id!r}")
            else:
                record, metadata = encoded_record(given, dimension=dimension, metric=metric)
                ready.append((name, record))
                row = row_of(record, metadata)
            rows.append(row)
            size_bytes += row.size_bytes
        digest = b"" if op_id is None else batch_digest(rows)
        return _Batch(ready, rows, size_bytes, op_id, digest)

    def _commit(self, batches: Sequence[_Batch]) -> list[Appended | VectorStoreError]:
        """One transaction for all; if that fails, each alone, so that one's error is its own."""
        try:
            return self._commit_together(batches)
        except JournalBusy as error:
            return [JournalBusy(str(error)) for _ in batches]
        except VectorStoreError as error:
            if len(batches) == 1:
                return [error]
        return [outcome for batch in batches for outcome in self._commit([batch])]

    def _commit_together(self, batches: Sequence[_Batch]) -> list[Appended | VectorStoreError]:
        outcomes: list[Appended | VectorStoreError] = []
        rows: list[tuple[int | float | str | bytes | None, ...]] = []
        size_bytes = 0
        with self._file.writing() as connection:
            head, incarnation, sealed = connection.execute(
                "SELECT head, incarnation, sealed FROM state"
            ).fetchone()
            if incarnation != self.incarnation:
                raise self._restored(incarnation)
            if sealed:
                raise JournalSealed("the migration is final: PostgreSQL takes writes itself")
            room = self._room(connection, sum([batch.size_bytes for batch in batches]))
            now = self.clock()
            for batch in batches:
                earlier = None
                if batch.op_id is not None:
                    earlier = self._earlier(connection, batch, now)
                if earlier is not None:
                    outcomes.append(earlier)
                    continue
                if size_bytes + batch.size_bytes > room:
                    outcomes.append(self._full(connection, batch, room - size_bytes))
                    continue
                first = head + 1
                for row in batch.rows:
                    head += 1
                    rows.append(
                        (head, row.id, now, self.mark, row.text, row.metadata, row.embedding)
                    )
                size_bytes += batch.size_bytes
                if batch.op_id is not None:
                    connection.execute(
                        "INSERT INTO operation VALUES (?, ?, ?, ?, ?)",
                        (first, head, batch.op_id, batch.digest, now),
                    )
                outcomes.append(Appended(first, head))
            if rows:
                connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                connection.execute("UPDATE state SET head = ?", (head,))
                # A row may leave all but a little of its last page unused.
                self._free_bytes -= size_bytes + PAGE_SIZE_BYTES * len(rows)
        self._checkpointer.wrote(size_bytes)
        return outcomes

    def _room(self, connection: sqlite3.Connection, wanted_bytes: int) -> int:
        """Bytes that the journal may still grow by; exact if ``wanted_bytes`` come near to that.

        To ask SQLite takes as long as to insert an entry. While there is plenty, what this process wrote
        since it last asked is a good enough account, for as long as others cannot have written much.
        """
        now = time.monotonic()
        if (
            now - self._asked_at > ROOM_AGE_S_MAX
            or wanted_bytes > ROOM_SHARE_MAX * self._free_bytes
        ):
            self._free_bytes = self._size_bytes_max - self._file.used_bytes(connection)
            self._asked_at = now
        return self._free_bytes

    def _committed(
        self, batches: Sequence[_Batch], outcomes: Sequence[Appended | VectorStoreError]
    ) -> None:
        """Tell of the new entries, in runs without a gap: batches that were committed each alone may
        have those of other processes between them."""
        tell = self.on_commit
        if tell is None:
            return
        run: list[Change] = []
        for batch, outcome in zip(batches, outcomes, strict=True):
            if isinstance(outcome, VectorStoreError) or outcome.replayed:
                continue
            if run and run[-1].seq + 1 != outcome.first_seq:
                tell(run)
                run = []
            written = zip(batch.changes, batch.rows, strict=True)
            for seq, ((name, record), row) in enumerate(written, outcome.first_seq):
                placed = None
                if record is not None and row.embedding is not None:
                    # The vector that was written, whatever became of the caller's array meanwhile. Not
                    # replace(), which takes ten times as long.
                    vector = vector_of(row.embedding)
                    placed = Record(name, vector, record.text, record.metadata, seq)
                run.append(Change(seq, name, placed, self.mark))
        if run:
            tell(run)

    def _earlier(
        self, connection: sqlite3.Connection, batch: _Batch, now: float
    ) -> Appended | VectorStoreError | None:
        """What an earlier call with the same op_id came to; None if there is none."""
        found = connection.execute(
            "SELECT first_seq, last_seq, digest, appended_at FROM operation WHERE op_id = ?",
            (batch.op_id,),
        ).fetchone()
        if found is None:
            return None
        first_seq, last_seq, digest, appended_at = found
        if now - appended_at > OPERATION_SECONDS:
            connection.execute("DELETE FROM operation WHERE op_id = ?", (batch.op_id,))
            return None
        if digest != batch.digest:
            return InvalidInput(
                f"op_id {batch.op_id!r} was used for another batch (seq {first_seq} to {last_seq}); "
                "an op_id names one write: take a new one"
            )
        return Appended(first_seq, last_seq, replayed=True)

    def _full(self, connection: sqlite3.Connection, batch: _Batch, room: int) -> JournalFull:
        holder = oldest_holder(connection)
        who = "nobody holds entries back: truncate it"
        if holder is not None:
            who = f"{holder[0]!r} still needs the entries after {holder[1]}: let it catch up"
        return JournalFull(
            f"the journal is at its limit of {self._size_bytes_max:,} bytes: {max(room, 0):,} are "
            f"free and the batch needs {batch.size_bytes:,}. {who}, detach it, or raise the limit "
            "(op_ids are kept for a day and count as well)",
            needed_bytes=batch.size_bytes,
        )

    def _restored(self, found: str) -> ForeignIncarnation:
        return ForeignIncarnation(
            f"the journal {self._file.path} was restored (incarnation {found}) while this process "
            f"ran on {self.incarnation}. Nothing was written: restart the process"
        )


def _check_operation(op_id: str) -> None:
    if not isinstance(op_id, str) or not 0 < len(op_id) <= OPERATION_ID_CHARS_MAX:
        raise InvalidInput(f"an op_id is text of 1 to {OPERATION_ID_CHARS_MAX} characters")
    check_text(op_id, "an op_id", 4 * OPERATION_ID_CHARS_MAX)


def oldest_holder(connection: sqlite3.Connection) -> tuple[str, int] | None:
    """The cursor or hold that truncation waits for, and its seq."""
    found = connection.execute(
        "SELECT store, seq FROM cursor UNION ALL SELECT name, seq FROM hold ORDER BY 2, 1 LIMIT 1"
    ).fetchone()
    return None if found is None else (str(found[0]), int(found[1]))

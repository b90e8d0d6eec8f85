"""A PostgreSQL that fits into a dictionary: transactions, a cursor, loads, and a switch.

The real ``PostgresStore`` runs on it (bind, apply, detach, finalize, repair's lock): only what speaks SQL
is replaced, a transaction being a copy that is put in place at the end or thrown away.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from unittest import mock

import numpy as np

from shadow.writes import backfill, parts
from tests.machine.oracle import DIMENSION
from vectorstore.errors import StoreCorrupt, StoreUnavailable
from vectorstore.filters import Filter
from vectorstore.memory import MemoryStore
from vectorstore.postgres import store as postgres_store
from vectorstore.postgres.cursor import Cursor, require_own_rows
from vectorstore.postgres.loading import LoadProgress
from vectorstore.postgres.schema import Names
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore
from vectorstore.types import Answer, Change, Metric, Query, Record

__all__ = ["FOREIGN", "DoubleServer", "PostgresqlDouble"]

FOREIGN = "another history"

T = TypeVar("T")


@dataclass
class Content:
    """What one server holds durably."""

    cursor: Cursor = field(default_factory=lambda: Cursor("", 0, "empty"))
    rows: dict[str, Record] = field(default_factory=dict)
    load: LoadProgress | None = None


class DoubleServer:
    """One server, shared by the stores of every process.

    ``meanwhile`` runs once, when the next transaction waits for its lock: what another process does then.
    """

    def __init__(self) -> None:
        self.up = True
        self.content = Content()
        self.saved: Content | None = None
        self.meanwhile: Callable[[], None] | None = None
        # Noted, not raised: a write must survive whatever fails behind it.
        self.fallen: list[tuple[int, int]] = []

    def open(self) -> PostgresqlDouble:
        """A process's store."""
        self.require_up()
        return PostgresqlDouble(self)

    def close(self) -> None:
        """An opener's end: nothing to do."""

    def require_up(self) -> None:
        """Raise as a driver does whose server is away."""
        if not self.up:
            raise StoreUnavailable("the double is down")

    def damage(self, name: str, text: str | None) -> None:
        """Lose a row, or change its text behind everyone's back; one that is not there appears."""
        rows = self.content.rows
        row = rows.pop(name, None)
        if text is not None:
            made = Record(name, np.ones(DIMENSION, dtype=np.float32), text, {}, 0)
            rows[name] = made if row is None else replace(row, text=text)

    def save(self) -> None:
        """Keep a copy, as a lagging standby does."""
        self.saved = copy.deepcopy(self.content)

    def fail_over(self) -> bool:
        """Put the copy in the server's place; false if there is none."""
        if self.saved is None:
            return False
        self.content = copy.deepcopy(self.saved)
        return True

    def become_foreign(self) -> None:
        """Hold the rows of another journal at the same seq."""
        content = self.content
        content.cursor = replace(content.cursor, incarnation=FOREIGN)
        content.rows = {k: replace(r, text="foreign") for k, r in content.rows.items()}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let new processes and backfills find this server."""
        with ExitStack() as stack:
            stack.enter_context(
                mock.patch("shadow.linking._PostgresqlOpener", lambda *_, **__: self)
            )
            for module, name, double in _SEAMS:
                original = getattr(module, name)
                stack.enter_context(mock.patch.object(module, name, _either(double, original)))
            yield


class PostgresqlDouble(PostgresStore):
    """The real store over a :class:`DoubleServer`."""

    def __init__(self, server: DoubleServer) -> None:
        self.settings = PostgresSettings(
            dsn="postgresql://double", dimension=DIMENSION, metric=Metric.COSINE
        )
        self.server = server
        self.names = Names.of(self.settings.table)
        self._incarnation = None
        self._closed = False

    def transact(self, operation: Callable[[Any], T], *, timeout_ms: float | None = None) -> T:
        self._require()
        meanwhile, self.server.meanwhile = self.server.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        transaction = Transaction(copy.deepcopy(self.server.content))
        result = operation(transaction)
        self._require()
        before, after = self.server.content.cursor, transaction.content.cursor
        if (before.state, after.state) == ("following", "following") and after.seq < before.seq:
            self.server.fallen.append((before.seq, after.seq))
        self.server.content = transaction.content
        return result

    def _advance(self, *_: object) -> bool:
        # One statement of SQL, for which the transaction below it stands in.
        return False

    def cursor(self, *, timeout_ms: float | None = None) -> Cursor:
        self._require()
        return self.server.content.cursor

    def search(self, query: Query) -> Answer:
        content = self._readable()
        return Answer(self._exact(content).search(query).hits, self.name, content.cursor.seq)

    def search_exact(self, query: Query) -> Answer:
        return self.search(query)

    def search_many(self, queries: Sequence[Query]) -> list[Answer]:
        return [self.search(query) for query in queries]

    def get(self, ids: Sequence[str], *, timeout_ms: float | None = None) -> list[Record]:
        rows = self._content().rows
        return [rows[one] for one in ids if one in rows]

    def scan(
        self, *, after: str = "", limit: int = 1000, timeout_ms: float | None = None
    ) -> list[Record]:
        return self._exact(self._content()).scan(after=after, limit=limit)

    def count(self, filter: Filter | None = None, *, timeout_ms: float | None = None) -> int:
        return self._exact(self._content()).count(filter)

    def repair(
        self,
        record_id: str,
        record: Record | None,
        *,
        expected_seq: int | None,
        unchanged: Callable[[int], bool] = lambda _: True,
    ) -> bool:
        def repair(transaction: Transaction) -> bool:
            rows = transaction.content.rows
            found = rows.get(record_id)
            if (found.seq if found else None) != expected_seq:
                return False
            if not unchanged(transaction.content.cursor.seq):
                return False
            rows.pop(record_id, None)
            if record is not None:
                rows[record_id] = record
            return True

        return self.transact(repair)

    def describe(self, *, timeout_ms: float | None = None) -> Mapping[str, Any]:
        self._require()
        return {"store": "postgresql", "kind": "exact"}

    def close(self) -> None:
        self._closed = True

    def _content(self) -> Content:
        self._require()
        return self.server.content

    def _readable(self) -> Content:
        content = self._content()
        if content.cursor.state == "loading":
            raise StoreUnavailable("the table is being loaded")
        return content

    def _exact(self, content: Content) -> MemoryStore:
        memory = MemoryStore(dimension=self.dimension, metric=self.metric)
        memory._records = content.rows
        return memory

    def _require(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        self.server.require_up()


class Transaction:
    """Stands for the connection of one transaction."""

    def __init__(self, content: Content) -> None:
        self.content = content


def _locked_cursor(transaction: Transaction, names: object) -> Cursor:
    return transaction.content.cursor


def _move_cursor(transaction: Transaction, names: object, cursor: Cursor) -> None:
    transaction.content.cursor = cursor


def _write_changes(transaction: Transaction, names: object, changes: Sequence[Change]) -> None:
    rows = transaction.content.rows
    for change in changes:
        held = rows.get(change.id)
        if held is not None and held.seq >= change.seq:
            continue
        if change.record is None:
            rows.pop(change.id, None)
        else:
            rows[change.id] = replace(change.record, seq=change.seq)


def _begin_load(
    store: PostgresqlDouble,
    *,
    incarnation: str,
    snapshot_id: str,
    seq: int,
    parts: int = 1,
    own: Collection[str] | None = None,
) -> LoadProgress:
    progress = LoadProgress(snapshot_id, seq, (0,) * parts)

    def begin(transaction: Transaction) -> None:
        if own is not None:
            cursor = transaction.content.cursor
            require_own_rows(cursor, store.settings.table, incarnation=incarnation, own=own)
        transaction.content.cursor = Cursor(incarnation, 0, "loading")
        transaction.content.rows = {}
        transaction.content.load = progress

    store.transact(begin)
    store.bind(incarnation)
    return progress


def _load_progress(store: PostgresqlDouble) -> LoadProgress | None:
    content = store._content()
    return content.load if content.cursor.state == "loading" else None


def _load_block(
    store: PostgresqlDouble,
    records: Sequence[Record],
    *,
    position_start: int,
    position_end: int,
    part: int = 0,
) -> None:
    def load(transaction: Transaction) -> None:
        progress = transaction.content.load
        assert progress is not None
        if progress.positions != (position_start,):
            raise StoreCorrupt("somebody else loaded this block")
        transaction.content.load = replace(progress, positions=(position_end,))
        for record in records:
            assert record.id not in transaction.content.rows, "a row was loaded twice"
            transaction.content.rows[record.id] = record

    store.transact(load)


def _finish_load(
    store: PostgresqlDouble, *, rows: int | None = None, on_progress: object = None
) -> Cursor:
    def finish(transaction: Transaction) -> Cursor:
        progress = transaction.content.load
        assert progress is not None
        assert rows in (None, sum(progress.positions)), "the load is not complete"
        moved = Cursor(transaction.content.cursor.incarnation, progress.seq, "following")
        transaction.content.cursor, transaction.content.load = moved, None
        return moved

    return store.transact(finish)


def _either(double: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    def call(first: object, *rest: Any, **options: Any) -> Any:
        mine = isinstance(first, Transaction | PostgresqlDouble)
        return (double if mine else original)(first, *rest, **options)

    return call


_SEAMS: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (postgres_store, "locked_cursor", _locked_cursor),
    (postgres_store, "move_cursor", _move_cursor),
    (postgres_store, "write_changes", _write_changes),
    (backfill, "begin_load", _begin_load),
    (backfill, "load_progress", _load_progress),
    (parts, "load_block", _load_block),
    (backfill, "finish_load", _finish_load),
)

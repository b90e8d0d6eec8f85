"""A connection that never waits beyond its deadline, even if the server has gone deaf."""

from __future__ import annotations

import select
import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeVar

import psycopg
from psycopg import abc
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow
from psycopg.waiting import Wait

__all__ = ["BoundedConnection", "Expired"]

T = TypeVar("T")

# Plain integers: psycopg's flags cost more to combine than the rest of a short wait.
_READ, _WRITE = int(Wait.R), int(Wait.W)
_EVENTS = (0, select.POLLIN, select.POLLOUT, select.POLLIN | select.POLLOUT)
# Each k that is asked for is a statement of its own, and the server keeps a plan for each.
_PREPARED_MAX = 64


class Expired(psycopg.OperationalError):
    """The deadline passed while waiting for the server; the connection has been closed."""


class BoundedConnection(psycopg.Connection[TupleRow]):
    """Waits for the socket itself, with a timeout, whatever the driver is doing on it.

    ``statement_timeout`` cannot help when a server hangs, a firewall drops packets or a machine
    dies: no reply ever comes. Every exchange of a psycopg connection goes through :meth:`wait`, so a
    deadline kept here covers queries, pipelines, COPY, BEGIN, COMMIT and ROLLBACK alike. When it
    passes, the socket is closed without waiting, since the state of the exchange is unknown.

    ``deadline`` is a ``time.monotonic()`` value, or None for no limit. ``replies`` counts the
    exchanges under a deadline in which the server was heard, since it was last set to 0. ``session``
    remembers the session settings that were sent, so that they are sent again only when they change.
    ``vector_oid`` and ``vector_array_oid`` are the types' numbers in this database. ``reader`` is a cursor to use again and again:
    what it has learnt about types costs a new one 50 microseconds.
    """

    deadline: float | None = None
    replies: int = 0
    vector_oid: int = 0
    vector_array_oid: int = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.session: dict[str, int] = {}
        self._names_by_text: OrderedDict[str, bytes] = OrderedDict()
        self._names_given = 0

    @cached_property
    def reader(self) -> psycopg.Cursor[TupleRow]:
        # Made on first use: a cursor copies the types that its connection knows by then.
        return self.cursor(binary=True)

    def fetch(
        self, text: str, types: Sequence[int], values: Sequence[bytes | None]
    ) -> list[TupleRow]:
        """The rows of a statement, binary both ways; prepared on first use, outside pipelines.

        ``text`` numbers its parameters ($1, ..), ``types`` are their types' numbers. What a cursor does
        for every kind of statement costs a short one more time than its answer takes to decode, so
        this speaks to libpq itself. Raises what a cursor would.
        """
        try:
            result = self._run(self._names_by_text.get(text), text, types, values)
        except InvalidSqlStatementName:
            # The driver deallocates everything after a rollback and after some commands of schema.
            self._names_by_text.clear()
            result = self._run(None, text, types, values)
        self._loading.set_pgresult(result)
        return self._loading.load_rows(0, result.ntuples, tuple)

    @cached_property
    def _loading(self) -> abc.Transformer:
        # Made on first use, like the reader.
        return Transformer(self)

    def _run(
        self,
        name: bytes | None,
        text: str,
        types: Sequence[int],
        values: Sequence[bytes | None],
    ) -> PGresult:
        # Lists, since the driver's compiled part takes nothing else before psycopg 3.3.
        self.pgconn.send_query_prepared(
            name or self._prepare(text, types),
            list(values),
            [Format.BINARY] * len(values),
            result_format=Format.BINARY,
        )
        return self._result(ExecStatus.TUPLES_OK)

    def _prepare(self, text: str, types: Sequence[int]) -> bytes:
        if len(self._names_by_text) >= _PREPARED_MAX:
            _, oldest = self._names_by_text.popitem(last=False)
            self.execute(b"DEALLOCATE " + oldest, prepare=False)
        self._names_given += 1
        name = b"shadow_%d" % self._names_given
        self.pgconn.send_prepare(name, text.encode(), list(types))
        self._result(ExecStatus.COMMAND_OK)
        self._names_by_text[text] = name
        return name

    def _result(self, expected: ExecStatus) -> PGresult:
        """What the server says to what was just sent; the exchange is complete when this returns."""
        pgconn = self.pgconn
        poll = select.poll()
        poll.register(pgconn.socket, _EVENTS[_READ | _WRITE])
        result: PGresult | None = None
        try:
            while pgconn.flush():
                if self._events(poll) & select.POLLIN:
                    pgconn.consume_input()
            poll.modify(pgconn.socket, select.POLLIN)
            while True:
                # Without this look libpq itself would wait for the rest, and knows no deadline.
                while pgconn.is_busy():
                    self._events(poll)
                    pgconn.consume_input()
                found = pgconn.get_result()
                if found is None:
                    break
                result = found
        except KeyboardInterrupt:
            self.close()
            raise
        self.replies += 1
        if result is None:
            raise psycopg.OperationalError("the server ended the exchange without a result")
        if result.status != expected:
            raise error_from_result(result, encoding="utf-8")
        return result

    def _events(self, poll: select.poll) -> int:
        """Wait for the socket; what is ready. Closes the connection when the deadline passes."""
        if self.deadline is None:
            events = poll.poll()
        else:
            events = poll.poll(max(0.0, (self.deadline - time.monotonic()) * 1000.0))
        if not events:
            self.close()
            raise Expired("no reply within the deadline; the connection was closed")
        return events[0][1]

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        if self.deadline is None:
            result: T = super().wait(gen, *args, **options)
        else:
            result = self._wait_until(gen, self.deadline)
        return result

    def _wait_until(self, gen: PQGen[T], deadline: float) -> T:
        socket = self.pgconn.socket
        poll = select.poll()
        heard = False
        try:
            wanted = int(next(gen))
            poll.register(socket, _EVENTS[wanted])
            watched = wanted
            while True:
                if wanted != watched:
                    poll.modify(socket, _EVENTS[wanted])
                    watched = wanted
                remaining = deadline - time.monotonic()
                events = poll.poll(max(0.0, remaining * 1000.0))
                if not events:
                    gen.close()
                    self.close()
                    raise Expired("no reply within the deadline; the connection was closed")
                flags = events[0][1]
                # Hang-ups and errors are found by reading or writing, whichever is wanted.
                ready = wanted if flags & ~_EVENTS[wanted] else 0
                if flags & select.POLLIN:
                    ready |= _READ
                if flags & select.POLLOUT:
                    ready |= _WRITE
                heard = heard or bool(ready & _READ)
                # The driver's type is an IntFlag; it takes integers.
                wanted = int(gen.send(ready))
        except StopIteration as done:
            self.replies += heard
            value: T = done.value
            return value
        except KeyboardInterrupt:
            self.close()
            raise

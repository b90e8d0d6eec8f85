"""A connection that never waits beyond its deadline, even if the server has gone deaf."""

from __future__ import annotations

import select
import time
from functools import cached_property
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from psycopg.waiting import Wait

__all__ = ["BoundedConnection", "Expired"]

T = TypeVar("T")

# Plain integers: psycopg's flags cost more to combine than the rest of a short wait.
_READ, _WRITE = int(Wait.R), int(Wait.W)
_EVENTS = (0, select.POLLIN, select.POLLOUT, select.POLLIN | select.POLLOUT)


class Expired(psycopg.OperationalError):
    """The deadline passed while waiting for the server; the connection has been closed."""


class BoundedConnection(psycopg.Connection[TupleRow]):
    """Waits for the socket itself, with a timeout, whatever the driver is doing on it.

    ``statement_timeout`` cannot help when a server hangs, a firewall drops packets or a machine
    dies: no reply ever comes. Every exchange of a psycopg connection goes through :meth:`wait`, so a
    deadline kept here covers queries, pipelines, COPY, BEGIN, COMMIT and ROLLBACK alike. When it
    passes, the socket is closed without waiting, since the state of the exchange is unknown.

    ``deadline`` is a ``time.monotonic()`` value, or None for no limit. ``replies`` counts the
    exchanges under a deadline in which the server was heard, since it was last set to 0. ``session`` remembers the session settings
    that were sent, so that they are sent again only when they change. ``reader`` is a cursor to use
    again and again: what it has learnt about types costs a new one 50 microseconds.
    """

    deadline: float | None = None
    replies: int = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.session: dict[str, int] = {}

    @cached_property
    def reader(self) -> psycopg.Cursor[TupleRow]:
        # Made on first use: a cursor copies the types that its connection knows by then.
        return self.cursor(binary=True)

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

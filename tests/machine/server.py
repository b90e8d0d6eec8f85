"""PostgreSQL as the world sees it: a double in a dictionary, or a real one behind a proxy."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar
from unittest import mock

import psycopg
from psycopg import conninfo

from tests.machine.oracle import Held
from tests.machine.postgresql_double import FOREIGN, DoubleServer
from tests.plugins.postgresql import drop_tables
from tests.plugins.tcp_proxy import TcpProxy
from vectorstore.postgres.store import PostgresStore

__all__ = ["Doubled", "Real", "Server"]

T = TypeVar("T")


class Server(Protocol):
    """What the world may do to PostgreSQL, and see of it from outside."""

    @property
    def up(self) -> bool: ...

    def settings(self) -> dict[str, Any]: ...

    def installed(self) -> AbstractContextManager[None]: ...

    def switch(self, up: bool) -> None: ...

    def race(self, meanwhile: Callable[[], None] | None) -> None: ...

    def state_and_seq(self) -> tuple[str, int]: ...

    def rows(self) -> dict[str, Held]: ...

    def save(self) -> None: ...

    def fail_over(self) -> bool: ...

    def become_foreign(self) -> None: ...

    def damage(self, name: str, text: str | None) -> None: ...

    def is_foreign(self) -> bool: ...

    def fallen(self) -> list[tuple[int, int]]: ...


class Doubled:
    """The double."""

    def __init__(self) -> None:
        self._server = DoubleServer()

    @property
    def up(self) -> bool:
        return self._server.up

    def settings(self) -> dict[str, Any]:
        return {}

    def installed(self) -> AbstractContextManager[None]:
        return self._server.installed()

    def switch(self, up: bool) -> None:
        self._server.up = up

    def race(self, meanwhile: Callable[[], None] | None) -> None:
        self._server.meanwhile = meanwhile

    def state_and_seq(self) -> tuple[str, int]:
        cursor = self._server.content.cursor
        return cursor.state, cursor.seq

    def rows(self) -> dict[str, Held]:
        return {r.id: Held(r.seq, r.text) for r in self._server.content.rows.values()}

    def save(self) -> None:
        self._server.save()

    def fail_over(self) -> bool:
        return self._server.fail_over()

    def become_foreign(self) -> None:
        self._server.become_foreign()

    def damage(self, name: str, text: str | None) -> None:
        self._server.damage(name, text)

    def is_foreign(self) -> bool:
        return self._server.content.cursor.incarnation == FOREIGN

    def fallen(self) -> list[tuple[int, int]]:
        return self._server.fallen


class Real:
    """A table of its own on a real server, reached through a proxy that can be shut."""

    def __init__(self, dsn: str, proxy: TcpProxy) -> None:
        self._dsn = dsn
        self._proxy = proxy
        self._table = f"t_{uuid.uuid4().hex[:12]}"
        self._meanwhile: Callable[[], None] | None = None
        self.up = True

    def settings(self) -> dict[str, Any]:
        port = conninfo.conninfo_to_dict(self._dsn)["port"]
        return {
            "dsn": self._dsn.replace(f":{port}/", f":{self._proxy.port}/"),
            "table": self._table,
            "pool_size_max": 2,
        }

    @contextmanager
    def installed(self) -> Iterator[None]:
        original = PostgresStore.transact

        def transact(store: PostgresStore, operation: Callable[[Any], T], **options: Any) -> T:
            meanwhile, self._meanwhile = self._meanwhile, None
            if meanwhile is not None:
                meanwhile()
            return original(store, operation, **options)

        with mock.patch.object(PostgresStore, "transact", transact):
            try:
                yield
            finally:
                self.switch(True)
                drop_tables(self._dsn, self._table)

    def switch(self, up: bool) -> None:
        if up:
            self._proxy.serve()
        else:
            self._proxy.refuse()
        self.up = up

    def race(self, meanwhile: Callable[[], None] | None) -> None:
        self._meanwhile = meanwhile

    def state_and_seq(self) -> tuple[str, int]:
        if not self._exists():
            return "empty", 0
        return self._ask(f"SELECT state, seq FROM {self._table}_cursor")[0]  # type: ignore[return-value]

    def rows(self) -> dict[str, Held]:
        found = self._ask(f"SELECT id, seq, text FROM {self._table}")
        return {name: Held(seq, text) for name, seq, text in found}

    def save(self) -> None:
        """Only the double fails over: a cluster per example would take minutes."""

    def fail_over(self) -> bool:
        return False

    def become_foreign(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(f"UPDATE {self._table}_cursor SET incarnation = %s", (FOREIGN,))
            connection.execute(f"UPDATE {self._table} SET text = 'foreign'")

    def damage(self, name: str, text: str | None) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            if text is None:
                connection.execute(f"DELETE FROM {self._table} WHERE id = %s", (name,))
                return
            connection.execute(
                f"INSERT INTO {self._table} (id, seq, embedding, text, metadata) "
                "VALUES (%s, 0, '[1,1,1,1]', %s, '{}') "
                "ON CONFLICT (id) DO UPDATE SET text = excluded.text",
                (name, text),
            )

    def is_foreign(self) -> bool:
        if not self._exists():
            return False
        return bool(self._ask(f"SELECT incarnation FROM {self._table}_cursor")[0][0] == FOREIGN)

    def fallen(self) -> list[tuple[int, int]]:
        """Not watched: the double sees each transaction."""
        return []

    def _exists(self) -> bool:
        return self._ask("SELECT to_regclass(%s)", f"{self._table}_cursor")[0][0] is not None

    def _ask(self, text: str, *parameters: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            return connection.execute(text, parameters or None).fetchall()  # type: ignore[arg-type]

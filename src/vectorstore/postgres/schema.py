"""The tables: names, numbered migrations, and the checks made before a store opens."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

import psycopg
from psycopg import errors, sql

from vectorstore.errors import ConfigurationError, StoreUnavailable
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.settings import PostgresSettings

__all__ = ["Names", "ServerFacts", "damaged", "prepare_schema", "require_utf8"]

LOCK_MS_MAX = 500
SERVER_MAJOR_MIN = 14
PGVECTOR_MIN = (0, 7)
_INLINE_DIMENSION_MAX = 1_990
"""A vector of more dimensions and its row's other columns do not fit in a page of 8 kB."""


@dataclass(frozen=True, slots=True)
class Names:
    """Identifiers made from the table's name."""

    table: sql.Identifier
    cursor: sql.Identifier
    load: sql.Identifier
    schema_version: sql.Identifier
    vector_index: str

    @classmethod
    def of(cls, table: str) -> Names:
        return cls(
            sql.Identifier(table),
            sql.Identifier(f"{table}_cursor"),
            sql.Identifier(f"{table}_load"),
            sql.Identifier(f"{table}_schema"),
            f"{table}_embedding_hnsw",
        )


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server is; versions as numbers."""

    server_major: int
    server_version: str
    pgvector: tuple[int, ...]

    @property
    def iterates(self) -> bool:
        """Whether HNSW scans can go on until enough rows pass the filter (pgvector 0.8)."""
        return self.pgvector >= (0, 8)

    @property
    def has_crc32c(self) -> bool:
        """Whether SQL has crc32c(bytea) (PostgreSQL 18)."""
        return self.server_major >= 18


def prepare_schema(connection: BoundedConnection, settings: PostgresSettings) -> ServerFacts:
    """Check the server, make or upgrade the tables, and check that they fit the settings.

    Safe to run from several processes at once. Raises ConfigurationError that says what is wrong, and
    StoreUnavailable where an upgrade would have had to wait for others.
    """
    major = connection.info.server_version // 10_000
    if major < SERVER_MAJOR_MIN:
        raise ConfigurationError(
            f"the server is PostgreSQL {major}; {SERVER_MAJOR_MIN} or newer is needed"
        )
    require_utf8(connection)
    facts = ServerFacts(
        major, connection.info.parameter_status("server_version") or "", _pgvector(connection)
    )
    _migrate(connection, settings)
    _check_tables(connection, settings)
    return facts


def require_utf8(connection: BoundedConnection) -> None:
    """Raise ConfigurationError unless the database holds every character."""
    encoding = _value(connection, "SHOW server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database {connection.info.dbname} has the encoding {encoding}, which cannot hold every "
            "text: make one by CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0, or let "
            "`shadow init` make one"
        )


def _pgvector(connection: BoundedConnection) -> tuple[int, ...]:
    installed = _value(connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    if installed is None:
        _create_extension(connection)
        installed = _value(
            connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        )
    version = tuple(int(part) for part in str(installed).split(".") if part.isdigit())
    if version < PGVECTOR_MIN:
        raise ConfigurationError(
            f"pgvector {installed} is installed; 0.7 or newer is needed: install a newer package "
            "and run ALTER EXTENSION vector UPDATE"
        )
    _require_in_sight(connection)
    return version


def _require_in_sight(connection: BoundedConnection) -> None:
    """Raise ConfigurationError unless the type is found by its name alone, as all statements name it."""
    if _value(connection, "SELECT to_regtype('vector') IS NOT NULL"):
        return
    row = connection.execute(
        "SELECT quote_ident(nspname), quote_ident(current_user), quote_ident(current_database()), "
        "current_setting('search_path'), has_schema_privilege(e.extnamespace, 'USAGE'), "
        "replace(quote_ident(nspname), ' ', '') = ANY(string_to_array("
        "replace(current_setting('search_path'), ' ', ''), ',')) "
        "FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'vector'"
    ).fetchone()
    if row is None:
        # Dropped in this moment: whoever needs the type next is told.
        return
    schema, role, database, path, permitted, looked_in = row
    why, cures = [], []
    if not permitted:
        why.append(f"the role {role} has no permission to use that")
        cures.append(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    if not looked_in:
        why.append(f"the role {role} does not look there (its search_path is {path})")
        cures.append(f"ALTER ROLE {role} IN DATABASE {database} SET search_path = {path}, {schema}")
    raise ConfigurationError(
        f"the extension vector is in the schema {schema}, and {' and '.join(why)}: {'; '.join(cures)}"
    )


def _create_extension(connection: BoundedConnection) -> None:
    available = "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
    if _value(connection, available) is None:
        raise ConfigurationError(
            "this PostgreSQL server has no pgvector: install the package (for example "
            "postgresql-16-pgvector) or choose a server that offers the extension `vector`"
        )
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            "the extension vector is not enabled in this database and the role may not enable it: "
            "let an administrator run CREATE EXTENSION vector, or run `shadow init`"
        ) from error
    except errors.UniqueViolation:
        # Another process created it in the same moment.
        return


def _migrate(connection: BoundedConnection, settings: PostgresSettings) -> None:
    names = Names.of(settings.table)
    steps = _migrations()
    if _version(connection, settings) == len(steps):
        return
    try:
        with connection.transaction():
            connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
                (f"shadow-cutover schema {settings.table}",),
            )
            # Reads queue behind who waits for a lock of a table: better to give up, and try again later.
            # Not before: whoever makes the tables just now is waited for, which is nobody's reader.
            connection.execute(f"SET LOCAL lock_timeout = '{LOCK_MS_MAX}ms'".encode())
            connection.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {} (version integer PRIMARY KEY, "
                    "applied_at timestamptz NOT NULL DEFAULT now())"
                ).format(names.schema_version)
            )
            for number in range(_version(connection, settings) + 1, len(steps) + 1):
                connection.execute(_filled(steps[number - 1], names, settings))
                connection.execute(
                    sql.SQL("INSERT INTO {} (version) VALUES (%s)").format(names.schema_version),
                    (number,),
                )
    except errors.LockNotAvailable as error:
        raise StoreUnavailable(
            f"the schema of table {settings.table} is to be upgraded, and a long statement holds the table "
            "(a dump, the build of an index): nothing was changed; try again when that has ended"
        ) from error
    except errors.DuplicateTable as error:
        raise ConfigurationError(
            f"a table of the name {settings.table} exists that this program did not make: "
            "give another table name"
        ) from error
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"the role may not create the table {settings.table}: {error.diag.message_primary}. "
            "Grant CREATE on the schema, or run `shadow init`"
        ) from error


def _version(connection: BoundedConnection, settings: PostgresSettings) -> int:
    name = f"{settings.table}_schema"
    known = "SELECT to_regclass(quote_ident(%s)) IS NOT NULL"
    if not _value(connection, known, (name,)):
        return 0
    highest = sql.SQL("SELECT coalesce(max(version), 0) FROM {}").format(sql.Identifier(name))
    version = int(_value(connection, highest))
    if version > len(_migrations()):
        raise ConfigurationError(
            f"table {settings.table} was made by a newer release (schema {version}); upgrade this one"
        )
    return version


def _migrations() -> list[str]:
    folder = resources.files("vectorstore.postgres") / "migrations"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in files]


def _filled(text: str, names: Names, settings: PostgresSettings) -> sql.Composed:
    inline = settings.dimension <= _INLINE_DIMENSION_MAX
    # The text is a file of this package.
    return sql.SQL(text).format(
        table=names.table,
        cursor=names.cursor,
        load=names.load,
        dimension=sql.Literal(settings.dimension),
        storage=sql.SQL("MAIN" if inline else "EXTERNAL"),
        metric=sql.Literal(settings.metric.value),
        metadata_index=sql.Identifier(f"{settings.table}_metadata"),
        source_index=sql.Identifier(f"{settings.table}_source_document"),
    )


def damaged(table: str, what: str) -> str:
    """What to say of tables that somebody else has damaged beyond what can be read from them."""
    return (
        f"{what}, which is not this program's doing. While a migration lasts: drop those of the tables "
        f"{table}, {table}_cursor, {table}_load and {table}_schema that are left, and run `shadow "
        "backfill`. If it was finalized, they are the only copy: restore them from PostgreSQL's own backup"
    )


def _check_tables(connection: BoundedConnection, settings: PostgresSettings) -> None:
    needed = [settings.table, f"{settings.table}_cursor", f"{settings.table}_load"]
    gone = connection.execute(
        "SELECT name FROM unnest(%s::text[]) name WHERE to_regclass(quote_ident(name)) IS NULL",
        (needed,),
    ).fetchall()
    if gone:
        names = " and ".join(name for (name,) in gone)
        raise ConfigurationError(
            damaged(settings.table, f"of the tables that were made {names} is gone")
        )
    dimension = _value(
        connection,
        "SELECT atttypmod FROM pg_attribute "
        "WHERE attrelid = to_regclass(quote_ident(%s)) AND attname = 'embedding'",
        (settings.table,),
    )
    if dimension != settings.dimension:
        raise ConfigurationError(
            f"table {settings.table} holds vectors of {dimension} dimensions, but the settings say "
            f"{settings.dimension}: correct the setting or give another table name"
        )
    missing = connection.execute(
        "SELECT name, privilege FROM unnest(%s::text[]) name, "
        "unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) privilege "
        "WHERE NOT has_table_privilege(quote_ident(name), privilege)",
        (needed,),
    ).fetchall()
    if missing:
        wanted = ", ".join(f"{privilege} on {name}" for name, privilege in missing)
        raise ConfigurationError(f"the PostgreSQL role lacks permissions: GRANT {wanted}")
    metric = _value(
        connection, sql.SQL("SELECT metric FROM {}").format(Names.of(settings.table).cursor)
    )
    if metric is None:
        raise ConfigurationError(
            damaged(settings.table, f"{settings.table}_cursor has lost its row")
        )
    if metric != settings.metric.value:
        raise ConfigurationError(
            f"table {settings.table} was made for the metric {metric}, but the settings say "
            f"{settings.metric.value}: correct the setting or give another table name"
        )


def _value(
    connection: psycopg.Connection[Any], query: Any, parameters: tuple[object, ...] = ()
) -> Any:
    row = connection.execute(query, parameters).fetchone()
    return None if row is None else row[0]

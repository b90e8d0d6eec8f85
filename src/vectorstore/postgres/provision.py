"""Makes a role, a database, the extension and a schema on a server, given admin rights."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import conninfo, errors, sql

from vectorstore.errors import ConfigurationError
from vectorstore.postgres.connection import BoundedConnection
from vectorstore.postgres.dsn import check_dsn, scrub
from vectorstore.postgres.pool import connect
from vectorstore.postgres.schema import require_utf8
from vectorstore.postgres.settings import PostgresSettings

__all__ = ["provision"]


def provision(
    admin_dsn: str,
    *,
    role: str,
    database: str,
    schema: str | None = None,
    password: str | None = None,
) -> str:
    """Make what the store needs and return the DSN to use. Running it again repairs what is missing.

    The role gets a new generated password each time, unless ``password`` is given; it owns the
    database, and the schema if one is named (which then comes first in the role's search path).
    Raises ConfigurationError for missing rights, the administrator's own role, a server without
    pgvector or a database of that name in another encoding than UTF8, StoreUnavailable if the server
    cannot be reached.
    """
    secret = password or secrets.token_urlsafe(24)
    settings = PostgresSettings(dsn=check_dsn(admin_dsn), dimension=1)
    try:
        with connect(settings) as admin:
            _require_pgvector(admin)
            _make_role(admin, role, secret)
            _make_database(admin, database, role)
        with connect(replace(settings, dsn=_with(admin_dsn, dbname=database))) as admin:
            require_utf8(admin)
            _make_extension_and_schema(admin, role, database, schema)
    except psycopg.Error as error:
        raise ConfigurationError(
            f"the server at {settings.dsn_masked} refused to make role {role} or database "
            f"{database}: {scrub(str(error), admin_dsn)}. Give the DSN of a role that may CREATE "
            "ROLE and CREATE DATABASE"
        ) from error
    return _with(admin_dsn, dbname=database, user=role, password=secret)


def _require_pgvector(admin: BoundedConnection) -> None:
    if not _found(admin, "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'", ()):
        raise ConfigurationError(
            "this PostgreSQL server has no pgvector: install the package (for example "
            "postgresql-16-pgvector) or choose a server that offers the extension `vector`"
        )


def _make_role(admin: BoundedConnection, role: str, secret: str) -> None:
    name = sql.Identifier(role)
    found = admin.execute(
        "SELECT rolsuper OR rolname = session_user FROM pg_roles WHERE rolname = %s", (role,)
    ).fetchone()
    if found is not None and found[0]:
        raise ConfigurationError(
            f"the role {role} is the one that is logged in, or a superuser: it would get a new password, "
            "and whoever uses it be locked out. Nothing was changed; name a role of the router's own"
        )
    if found is None:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
    admin.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(secret)))


def _make_database(admin: BoundedConnection, database: str, role: str) -> None:
    if _found(admin, "SELECT 1 FROM pg_database WHERE datname = %s", (database,)):
        return
    # Managed servers ask the creator to be a member of the owning role.
    admin.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(role)))
    admin.execute(
        sql.SQL("CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0").format(
            sql.Identifier(database), sql.Identifier(role)
        )
    )


def _make_extension_and_schema(
    admin: BoundedConnection, role: str, database: str, schema: str | None
) -> None:
    try:
        admin.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"the admin role may not enable the extension vector in {database}: let a superuser "
            "run CREATE EXTENSION vector there"
        ) from error
    admin.execute(
        sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}").format(
            sql.Identifier(database), sql.Identifier(role)
        )
    )
    name = sql.Identifier(schema or "public")
    if schema:
        admin.execute(
            sql.SQL("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}").format(
                name, sql.Identifier(role)
            )
        )
    admin.execute(
        sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(name, sql.Identifier(role))
    )
    # Enabled before in a schema of its own, as some managed servers have it, the type is found there only.
    extension = _schema_of_extension(admin)
    if extension != "public":
        admin.execute(
            sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(
                sql.Identifier(extension), sql.Identifier(role)
            )
        )
    path = list(dict.fromkeys((schema or "public", "public", extension)))
    if path != ["public"]:
        admin.execute(
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET search_path = {}").format(
                sql.Identifier(role),
                sql.Identifier(database),
                sql.SQL(", ").join(map(sql.Identifier, path)),
            )
        )


def _schema_of_extension(admin: BoundedConnection) -> str:
    row = admin.execute(
        "SELECT nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
        "WHERE extname = 'vector'"
    ).fetchone()
    return "public" if row is None else str(row[0])


def _found(admin: BoundedConnection, query: Any, parameters: tuple[object, ...]) -> bool:
    return admin.execute(query, parameters).fetchone() is not None


def _with(dsn: str, *, dbname: str, user: str | None = None, password: str | None = None) -> str:
    """The DSN with other parts, as a URI where it names at most one host."""
    parts = {key: str(value) for key, value in conninfo.conninfo_to_dict(dsn).items()}
    changes = {"dbname": dbname, "user": user, "password": password}
    parts |= {key: value for key, value in changes.items() if value is not None}
    host, port = parts.get("host", ""), parts.get("port", "")
    if "," in host or "hostaddr" in parts:
        return conninfo.make_conninfo("", **parts)
    login = quote(parts.pop("user", ""), safe="")
    if "password" in parts:
        login += ":" + quote(parts.pop("password"), safe="")
    place = f"[{host}]" if ":" in host else quote(host, safe="")
    place += f":{port}" if port else ""
    rest = {key: value for key, value in parts.items() if key not in ("host", "port", "dbname")}
    query = f"?{urlencode(rest, quote_via=quote)}" if rest else ""
    return f"postgresql://{login}@{place}/{quote(parts['dbname'], safe='')}{query}"

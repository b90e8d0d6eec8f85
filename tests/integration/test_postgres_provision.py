"""Making role, database, extension and schema from an administrator's DSN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from tests.conformance.suite import query, record
from vectorstore.errors import ConfigurationError, StoreUnavailable
from vectorstore.postgres.dsn import check_dsn, mask_dsn, scrub
from vectorstore.postgres.provision import provision
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore


@pytest.fixture
def cleanup(postgresql_dsn: str) -> Iterator[None]:
    yield
    with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
        connection.execute('DROP DATABASE IF EXISTS "farm data" WITH (FORCE)')
        connection.execute('DROP ROLE IF EXISTS "bot role"')
        connection.execute("DROP ROLE IF EXISTS nobody_much")


@pytest.mark.usefixtures("cleanup")
@pytest.mark.parametrize("schema", [None, "vectors"])
def test_the_dsn_that_comes_back_works(postgresql_dsn: str, schema: str | None) -> None:
    """The new role, without other rights, opens a store and uses it; a second run changes nothing."""
    for _ in range(2):
        dsn = provision(postgresql_dsn, role="bot role", database="farm data", schema=schema)
        store = PostgresStore.open(PostgresSettings(dsn=dsn, dimension=8))
        store.upsert([record("one")])
        assert store.search(query()).hits[0].id == "one"
        store.close()
    with psycopg.connect(dsn) as connection:
        held = connection.execute(
            "SELECT relnamespace::regnamespace::text, pg_get_userbyid(relowner) FROM pg_class "
            "WHERE relname = 'document_embeddings'"
        ).fetchone()
        assert held == (schema or "public", "bot role")
        assert connection.execute(
            "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchone() == (False,)


@pytest.mark.usefixtures("cleanup")
@pytest.mark.parametrize("schema", [None, "vectors"])
def test_an_extension_in_a_schema_of_its_own_is_found(
    postgresql_dsn: str, schema: str | None
) -> None:
    """As managed servers have it. A role that does not look there is told what to do about it; one that
    is made here looks there."""
    admin_dsn = postgresql_dsn.rsplit("/", 1)[0] + "/farm%20data"
    with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE \"farm data\" ENCODING 'UTF8' TEMPLATE template0")
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "Ext ensions"')
        connection.execute('CREATE EXTENSION vector SCHEMA "Ext ensions"')
    with pytest.raises(
        ConfigurationError, match=r'"Ext ensions".*search_path = "\$user", public, "Ext ensions"'
    ) as refused:
        PostgresStore.open(PostgresSettings(dsn=admin_dsn, dimension=8))
    dsn = provision(postgresql_dsn, role="bot role", database="farm data", schema=schema)
    with closing(PostgresStore.open(PostgresSettings(dsn=dsn, dimension=8))) as store:
        store.upsert([record("one")])
        assert store.search(query()).hits[0].id == "one"
    # What the message says is what helps.
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(
            f'ALTER ROLE "bot role" IN DATABASE "farm data" SET search_path = {schema or "public"}'
        )
        connection.execute('REVOKE USAGE ON SCHEMA "Ext ensions" FROM "bot role"')
        other = PostgresSettings(dsn=dsn, dimension=8, table="another")
        with pytest.raises(ConfigurationError, match="Ext ensions") as refused:
            PostgresStore.open(other)
        connection.execute(str(refused.value).partition("): ")[2].encode())
    PostgresStore.open(other).close()


@pytest.mark.usefixtures("cleanup")
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_does_not_hold_every_text_is_refused(
    postgresql_dsn: str, encoding: str
) -> None:
    """Before anything is made in it: its first text beyond the encoding would stop the applier."""
    with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE \"farm data\" ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        )
    dsn = postgresql_dsn.rsplit("/", 1)[0] + "/farm%20data"
    with pytest.raises(ConfigurationError, match=f"{encoding}.*TEMPLATE template0"):
        PostgresStore.open(PostgresSettings(dsn=dsn, dimension=8))
    with pytest.raises(ConfigurationError, match=encoding):
        provision(postgresql_dsn, role="bot role", database="farm data")
    with psycopg.connect(dsn) as connection:
        made = connection.execute("SELECT FROM pg_extension WHERE extname = 'vector'").fetchall()
        assert made == []


@pytest.mark.usefixtures("cleanup")
def test_too_few_rights_are_explained(postgresql_dsn: str) -> None:
    """An ordinary role is told what the administrator needs, without a password in the text."""
    with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE nobody_much LOGIN PASSWORD 'quiet'")
    dsn = "postgresql://nobody_much:quiet@" + postgresql_dsn.split("@")[1]
    with pytest.raises(ConfigurationError, match="CREATE ROLE") as caught:
        provision(dsn, role="bot role", database="farm data")
    assert "quiet" not in str(caught.value)


@pytest.mark.usefixtures("cleanup")
def test_the_administrator_is_not_locked_out(postgresql_dsn: str) -> None:
    """Neither the role that is logged in nor a superuser gets another password."""
    with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE nobody_much LOGIN SUPERUSER PASSWORD 'quiet'")
        own = connection.execute("SELECT current_user").fetchone()
        assert own is not None
        secrets = "SELECT rolname, rolpassword FROM pg_authid ORDER BY rolname"
        before = connection.execute(secrets).fetchall()
        for role in (own[0], "nobody_much"):
            with pytest.raises(ConfigurationError, match="name a role of the router's own"):
                provision(postgresql_dsn, role=role, database="farm data")
        assert connection.execute(secrets).fetchall() == before


def test_an_unreachable_server_is_not_a_configuration_error() -> None:
    """It may come up later."""
    with pytest.raises(StoreUnavailable):
        provision("postgresql://a:b@127.0.0.1:1/x", role="r", database="d")


@pytest.mark.parametrize(
    ("dsn", "secret"),
    [
        ("postgresql://me:s3cret@host:5432/db", "s3cret"),
        ("postgres://me:s3%40cret@host/db?sslmode=require", "s3%40cret"),
        ("postgresql://me:p@ss@host/db", "p@ss"),
        ("postgresql://me:p#s?s@host/db", "s?s"),
        ("postgresql://me@host/db?password=s3cret&x=1", "s3cret"),
        ("host=h password=s3cret user=me", "s3cret"),
        ("host=h password='s3 \\' cret' user=me", "cret"),
        ("PASSWORD = s3cret host=h", "s3cret"),
        ("postgresql://me:s3cret@h1:1,h2:2/db", "s3cret"),
    ],
)
def test_masked_dsns_hold_no_secret(dsn: str, secret: str) -> None:
    """Every way to write a password is masked, and the host stays readable."""
    masked = mask_dsn(dsn)
    assert secret not in masked
    assert "***" in masked
    assert "h" in masked


@pytest.mark.parametrize(
    ("dsn", "why"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        ("postgresql://u:se@cret@127.0.0.1:1/x", "%40"),
        ("postgresql://u:se:x@cret@h,other/x", "%40"),
        ("postgresql://u@place:secret@h/x", "%40"),
        ("postgresql://u:se/cret@h/x", "%2F"),
        ("postgresql://u:12/cret@h/x", "%2F"),
        ("postgresql://u:se@12/cret@h/x", "%2F"),
        ("postgresql://u:a?b@cret@h/x", "%40"),
        ("postgresql://u:se@cr?et@h/x", "cannot be read"),
    ],
)
def test_a_dsn_that_means_something_else_is_refused(dsn: str, why: str) -> None:
    """None at all is whatever server libpq finds; half of a password is a host, which messages name."""
    with pytest.raises(ConfigurationError, match=why) as caught:
        check_dsn(dsn)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=@abstract port=5432 dbname=a@b",
        "host=/run/postgresql",
        "postgresql://u%40place:se%40c%2Fret@h1:1,h2:2/a%40b?application_name=a@b",
        "postgresql://[::1]:5432/x",
        "postgresql:///x",
    ],
)
def test_a_dsn_that_means_what_it_says_is_taken(dsn: str) -> None:
    """Several hosts, sockets, and an @ where it is one."""
    assert check_dsn(dsn) == dsn


def test_a_short_password_is_not_seen_in_other_words() -> None:
    """A mask inside a word would tell what the password is."""
    message = 'Name or service not known: "se"'
    assert scrub(message, "postgresql://me:se@h/db") == 'Name or service not known: "***"'


def test_a_password_is_scrubbed_from_a_message_wherever_it_stands() -> None:
    """Also decoded, as the driver quotes it."""
    message = scrub('invalid integer value "s3@cret" for port', "postgresql://me:s3%40cret@h/db")
    assert "s3@cret" not in message

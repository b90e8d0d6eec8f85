"""PostgreSQL alone: what is left when a migration is over."""

from __future__ import annotations

import os
from pathlib import Path

from vectorstore.errors import ConfigurationError
from vectorstore.postgres.embedded import EmbeddedServer
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore

__all__ = ["PostgresqlBackend"]

EMBEDDED = "embedded"


class PostgresqlBackend:
    """Opens the table, making it if it is not there. Every write is durable when it returns.

    ``embedded_directory``: where the packaged server keeps its data if ``database_url`` is
    ``embedded``; by default where a router in this folder left it.
    """

    def __init__(
        self,
        *,
        dimension: int,
        table_name: str = "document_embeddings",
        database_url: str | None = None,
        embedded_directory: str = ".shadow/postgresql",
    ) -> None:
        dsn = database_url or os.environ.get("DATABASE_URL", "")
        if not dsn:
            raise ConfigurationError(
                "DATABASE_URL is not set: give the DSN of a PostgreSQL with pgvector, or `embedded` "
                "for the packaged server"
            )
        if dsn == EMBEDDED:
            # It stops with the last process that uses it.
            dsn = EmbeddedServer(Path(embedded_directory)).start()
        self.store = PostgresStore.open(
            PostgresSettings(dsn=dsn, dimension=dimension, table=table_name)
        )

    def save(self) -> None:
        """Nothing is left to save: a write that returned is durable."""

    def load(self) -> bool:
        """Nothing to load: the table is read where it is. False if it is empty."""
        return self.store.count() > 0

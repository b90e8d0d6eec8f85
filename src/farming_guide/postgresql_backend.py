"""PostgreSQL alone: what is left when a migration is over."""

from __future__ import annotations

import os

from vectorstore.errors import ConfigurationError
from vectorstore.postgres.settings import PostgresSettings
from vectorstore.postgres.store import PostgresStore

__all__ = ["PostgresqlBackend"]


class PostgresqlBackend:
    """Opens the table, making it if it is not there. Every write is durable when it returns."""

    def __init__(
        self,
        *,
        dimension: int,
        table_name: str = "document_embeddings",
        database_url: str | None = None,
    ) -> None:
        dsn = database_url or os.environ.get("DATABASE_URL", "")
        if not dsn:
            raise ConfigurationError(
                "DATABASE_URL is not set: give the DSN of a PostgreSQL with pgvector"
            )
        self.store = PostgresStore.open(
            PostgresSettings(dsn=dsn, dimension=dimension, table=table_name)
        )

    def save(self) -> None:
        """Nothing is left to save: a write that returned is durable."""

    def load(self) -> bool:
        """Nothing to load: the table is read where it is. False if it is empty."""
        return self.store.count() > 0

"""PostgreSQL as the settings name it: the link to it, and the packaged server if they say so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shadow.config import Settings
from shadow.writes.postgresql_follower import PostgresqlLink
from vectorstore.types import Metric

if TYPE_CHECKING:
    from vectorstore.postgres.embedded import EmbeddedServer
    from vectorstore.postgres.store import PostgresStore

__all__ = ["open_link"]

EMBEDDED = "embedded"


def open_link(settings: Settings, dimension: int, metric: Metric) -> PostgresqlLink:
    """A link to PostgreSQL, which is not contacted yet."""
    directory = settings.state_directory.absolute()
    return PostgresqlLink(_PostgresqlOpener(settings, directory, dimension, metric))


class _PostgresqlOpener:
    """Opens the PostgreSQL store of these settings, and runs the packaged server if they say so."""

    def __init__(self, settings: Settings, directory: Path, dimension: int, metric: Metric) -> None:
        self._settings = settings
        self._directory = directory
        self._dimension = dimension
        self._metric = metric
        self._server: EmbeddedServer | None = None

    def open(self) -> PostgresStore:
        from vectorstore.postgres.settings import PostgresSettings
        from vectorstore.postgres.store import PostgresStore

        section = self._settings.postgresql
        return PostgresStore.open(
            PostgresSettings(
                dsn=self._dsn(),
                dimension=self._dimension,
                metric=self._metric,
                table=section.table,
                pool_size_max=section.pool_size_max,
                connect_timeout_ms=round(section.connect_timeout_ms),
                ef_search=section.ef_search,
                iterative_scan=section.iterative_scan,
                exact_rows_max=section.exact_rows_max,
                index_type=section.index_type,
                rerank_factor=section.rerank_factor,
                hnsw_m=section.hnsw_m,
                hnsw_ef_construction=section.hnsw_ef_construction,
                maintenance_work_mem=section.maintenance_work_mem,
            )
        )

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()

    def _dsn(self) -> str:
        dsn = self._settings.postgresql.dsn.get_secret_value()
        if dsn != EMBEDDED:
            return dsn
        from vectorstore.postgres.embedded import EmbeddedServer

        if self._server is None:
            self._server = EmbeddedServer(self._directory / "postgresql")
        return self._server.start()

"""Composition root: the one place that knows every part, and the only importer of the router."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any, Protocol

from farming_guide.answers import Advisor
from farming_guide.catalogue import read_catalogue
from farming_guide.chat_model import ChatModel
from farming_guide.climate import read_climate
from farming_guide.commands import Bot
from farming_guide.embeddings import Embedder, embedder_from_environment
from farming_guide.settings import BotSettings
from farming_guide.weather import OpenMeteo
from vectorstore.errors import ConfigurationError
from vectorstore.port import VectorStore

__all__ = [
    "OpenedBackend",
    "ShadowBackend",
    "open_advisor",
    "open_backend",
    "open_bot",
    "open_embedder",
]


class ShadowBackend:
    """The router over both stores. It and FAISS are imported only when this backend is chosen, so that
    a bot on PostgreSQL alone runs where neither is installed.

    ``config``: the router's configuration file; by default the one that the router finds by itself.
    ``embedding_model``: the bot's, so that evidence is counted anew when it changes; one that the
    router's own settings name goes before it.
    """

    def __init__(
        self, *, dimension: int, config: str | None = None, embedding_model: str | None = None
    ) -> None:
        from shadow.config_sources import load_settings as load_router_settings
        from shadow.service import open_router

        settings = load_router_settings(Path(config) if config is not None else None)
        if settings.embedding_model is None:
            settings = settings.model_copy(update={"embedding_model": embedding_model})
        self.store: VectorStore = open_router(settings)
        if self.store.dimension != dimension:
            held = self.store.dimension
            self.store.close()
            raise ConfigurationError(
                f"the router's stores hold vectors of {held} dimensions, not {dimension}: choose the "
                "embedding model that they were filled with"
            )

    def save(self) -> None:
        """Nothing is left to save: the journal has every write that returned."""

    def load(self) -> bool:
        """Nothing to load: the stores follow the journal. False if they are empty."""
        return self.store.count() > 0


class OpenedBackend(Protocol):
    """A store and what its files need."""

    @property
    def store(self) -> VectorStore:
        """The store, open."""

    def save(self) -> None:
        """Make everything durable that is not yet."""

    def load(self) -> bool:
        """Read what was saved; False if there is nothing."""


def open_backend(
    settings: BotSettings,
    dimension: int,
    *,
    name: str | None = None,
    model: str | None = None,
    **options: Any,
) -> OpenedBackend:
    """Open the backend that the settings name; ``options`` go over the backend's own settings.

    ``model``: the embedding model's name, which the router notes beside its evidence.
    Raises ConfigurationError if the name, class or module is not known, or the store's errors.
    """
    chosen = name or settings.vector_db_type
    backend = settings.database_backends.get(chosen)
    if backend is None:
        raise ConfigurationError(
            f"unknown backend {chosen!r}; known are: {', '.join(sorted(settings.database_backends))}"
        )
    given = {**backend.settings, **options}
    if settings.database_url is not None and chosen == "postgresql":
        given.setdefault("database_url", settings.database_url.get_secret_value())
    if model is not None and chosen == "shadow":
        given.setdefault("embedding_model", model)
    try:
        opener = getattr(importlib.import_module(backend.module), backend.class_, None)
        if opener is None:
            raise ConfigurationError(
                f"the backend {chosen!r} names the class {backend.class_}, which {backend.module} lacks"
            )
        try:
            inspect.signature(opener).bind(dimension=dimension, **given)
        except TypeError as error:
            raise ConfigurationError(
                f"the settings of backend {chosen!r} do not fit {backend.class_}: {error}"
            ) from error
        opened: OpenedBackend = opener(dimension=dimension, **given)
    except ImportError as error:
        raise ConfigurationError(
            f"the backend {chosen!r} needs {backend.class_} from {backend.module}: {error}"
        ) from error
    return opened


def open_advisor(
    settings: BotSettings, *, embedder: Embedder | None = None, store: VectorStore | None = None
) -> Advisor:
    """The advisor over the backend that the settings name (or the store given)."""
    model = embedder or open_embedder(settings)
    writer = None
    if settings.openai_api_key is not None:
        writer = ChatModel(
            api_key=settings.openai_api_key.get_secret_value(),
            model=settings.openai_chat_model,
            base_url=settings.openai_base_url,
        )
    return Advisor(
        store or open_backend(settings, model.dimension, model=model.model).store,
        model,
        read_catalogue(settings.handbook),
        writer=writer,
        top_k=settings.top_k,
        threshold=settings.threshold,
    )


def open_bot(settings: BotSettings, *, advisor: Advisor | None = None) -> Bot:
    """The whole bot: advisor, weather and climate table."""
    return Bot(
        advisor or open_advisor(settings),
        weather=OpenMeteo(settings.open_meteo_url, timeout_s=settings.weather_timeout_s),
        climate=read_climate(settings.climate_table),
    )


def open_embedder(settings: BotSettings) -> Embedder:
    """OpenAI's model if there is a key, else the offline one."""
    key = settings.openai_api_key
    chosen = {
        "OPENAI_API_KEY": key.get_secret_value() if key is not None else "",
        "OPENAI_BASE_URL": settings.openai_base_url or "",
        "OPENAI_EMBEDDING_MODEL": settings.openai_embedding_model,
        "OPENAI_EMBEDDING_DIMENSION": str(settings.openai_embedding_dimension or ""),
        "EMBEDDING_CACHE": str(settings.embedding_cache or ""),
    }
    return embedder_from_environment({name: value for name, value in chosen.items() if value})

"""Every setting of the bot: its default, bounds and meaning.

Settings come, the later over the earlier, from the defaults here, a TOML file
(``$FARMING_GUIDE_CONFIG``), and the environment: ``FARMING_GUIDE_`` and the setting's name in capitals.
Those that other tools share go by plain names, see ``PLAIN_NAMES``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from farming_guide.catalogue import HANDBOOK
from vectorstore.errors import ConfigurationError

__all__ = ["DATABASE_BACKENDS", "Backend", "BotSettings", "load_settings"]

ENVIRONMENT_PREFIX = "FARMING_GUIDE_"
CONFIG_VARIABLE = "FARMING_GUIDE_CONFIG"
PLAIN_NAMES = {
    "DATABASE_URL": "database_url",
    "EMBEDDING_CACHE": "embedding_cache",
    "OPENAI_API_KEY": "openai_api_key",
    "OPENAI_BASE_URL": "openai_base_url",
    "OPENAI_CHAT_MODEL": "openai_chat_model",
    "OPENAI_EMBEDDING_DIMENSION": "openai_embedding_dimension",
    "OPENAI_EMBEDDING_MODEL": "openai_embedding_model",
    "TELEGRAM_BOT_TOKEN": "telegram_token",
    "VECTOR_DB_TYPE": "vector_db_type",
}

Share = Annotated[float, Field(ge=-1.0, le=1.0)]


class Backend(BaseModel):
    """One way to keep vectors: ``class`` in ``module``, opened with ``settings`` as keywords."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    class_: str = Field(alias="class")
    module: str
    settings: dict[str, Any] = Field(default_factory=dict)


DATABASE_BACKENDS: Mapping[str, Backend] = {
    name: Backend.model_validate(entry)
    for name, entry in {
        "faiss": {
            "class": "FaissBackend",
            "module": "farming_guide.faiss_backend",
            "settings": {"storage_path": "data/vector_db", "index_type": "flat"},
        },
        "postgresql": {
            "class": "PostgresqlBackend",
            "module": "farming_guide.postgresql_backend",
            "settings": {"table_name": "document_embeddings"},
        },
        "remote": {
            "class": "RemoteBackend",
            "module": "farming_guide.remote_backend",
            "settings": {"url": "http://127.0.0.1:8080"},
        },
        "shadow": {"class": "ShadowBackend", "module": "farming_guide.wiring"},
    }.items()
}


class BotSettings(BaseModel):
    """All settings of the bot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vector_db_type: str = Field(
        "shadow", description="Which backend answers: a name in `database_backends`."
    )
    database_backends: dict[str, Backend] = Field(
        default_factory=lambda: dict(DATABASE_BACKENDS),
        description="The backends: class, module and settings by name.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL's DSN, or `embedded` for the packaged server; for the backends that need one.",
    )
    handbook: Path = Field(HANDBOOK, description="Folder of guides: titles, crops and seasons.")
    climate_table: Path = Field(
        HANDBOOK / "climate_normals.csv",
        description="Monthly normals, for when there is no forecast.",
    )
    top_k: int = Field(5, ge=1, le=50, description="Passages that are read for one answer.")
    threshold: Share | None = Field(
        None, description="Least score of a passage that may answer; unset: as fits the model."
    )
    openai_api_key: SecretStr | None = Field(
        None, description="OpenAI's key; unset: the offline model embeds and answers are quoted."
    )
    openai_base_url: str | None = Field(
        None, description="Address of a service that speaks OpenAI's language; unset: OpenAI's."
    )
    openai_embedding_model: str = Field(
        "text-embedding-3-small",
        description="The embedding model: the one that the stores were filled with.",
    )
    openai_embedding_dimension: int | None = Field(
        None,
        ge=1,
        description="Length of its vectors, for models that are not OpenAI's.",
    )
    embedding_cache: Path | None = Field(
        None, description="A file that keeps embeddings that were paid for; unset: none are kept."
    )
    openai_chat_model: str = Field("gpt-4o-mini", description="The model that words an answer.")
    open_meteo_url: str = Field(
        "https://api.open-meteo.com", description="Where the weather comes from; no key is needed."
    )
    weather_timeout_s: float = Field(5.0, gt=0, le=60, description="Longest wait for it, s.")
    telegram_token: SecretStr | None = Field(
        None, description="The bot's token, from @BotFather; for Telegram only."
    )
    telegram_base_url: str = Field(
        "https://api.telegram.org/bot", description="Telegram's address, or a local server's."
    )
    messages_per_minute_max: int = Field(
        20, ge=1, le=10_000, description="Messages that one user may send in a minute."
    )
    workers: int = Field(16, ge=1, le=256, description="Messages answered at the same time.")


def load_settings(environment: Mapping[str, str] | None = None) -> BotSettings:
    """Read the settings, or raise ConfigurationError that names the key and what is wrong with it."""
    variables = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    if variables.get(CONFIG_VARIABLE):
        values = _read_toml(Path(variables[CONFIG_VARIABLE]))
    for name, value in variables.items():
        if name in PLAIN_NAMES and value:
            values[PLAIN_NAMES[name]] = value
        elif name.startswith(ENVIRONMENT_PREFIX) and name != CONFIG_VARIABLE:
            values[name.removeprefix(ENVIRONMENT_PREFIX).lower()] = value
    backends = {name: b.model_dump(by_alias=True) for name, b in DATABASE_BACKENDS.items()}
    more = values.get("database_backends", {})
    if not isinstance(more, dict):
        raise ConfigurationError(
            "setting 'database_backends': it holds sections: write [database_backends.NAME] into the "
            "configuration, and class and module on the lines below"
        )
    values["database_backends"] = {**backends, **more}
    try:
        settings = BotSettings.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(sorted(BotSettings.model_fields))
            raise ConfigurationError(f"unknown setting {where!r}; known are: {known}") from None
        raise ConfigurationError(f"setting {where!r}: {problem['msg']}") from None
    if settings.vector_db_type not in settings.database_backends:
        known = ", ".join(sorted(settings.database_backends))
        raise ConfigurationError(
            f"VECTOR_DB_TYPE is {settings.vector_db_type!r}; it must be one of {known}"
        )
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"the configuration {path} cannot be read: {error}") from error

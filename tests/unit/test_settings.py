"""The bot's settings: plain names, a file, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from farming_guide.settings import DATABASE_BACKENDS, load_settings
from farming_guide.wiring import open_backend
from vectorstore.errors import ConfigurationError


def test_plain_names_and_prefixed_ones_are_honoured() -> None:
    """The names that other tools share need no prefix; secrets do not show in the settings' text."""
    settings = load_settings(
        {
            "VECTOR_DB_TYPE": "postgresql",
            "DATABASE_URL": "postgresql://bot:secret@db/guide",
            "OPENAI_API_KEY": "sk-secret",
            "TELEGRAM_BOT_TOKEN": "1:secret",
            "FARMING_GUIDE_TOP_K": "7",
        }
    )
    assert (settings.vector_db_type, settings.top_k) == ("postgresql", 7)
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value().endswith("/guide")
    assert "secret" not in repr(settings)


def test_a_file_sets_backends_and_the_environment_goes_over_it(tmp_path: Path) -> None:
    """A backend in the file joins those that come along."""
    path = tmp_path / "bot.toml"
    # Notepad begins its files with a mark.
    path.write_text(
        '\ufeffvector_db_type = "archive"\ntop_k = 3\n'
        '[database_backends.archive]\nclass = "FaissBackend"\n'
        'module = "farming_guide.faiss_backend"\n'
        f'settings = {{ storage_path = "{tmp_path / "none"}" }}\n'
    )
    settings = load_settings({"FARMING_GUIDE_CONFIG": str(path), "FARMING_GUIDE_TOP_K": "4"})
    assert (settings.vector_db_type, settings.top_k) == ("archive", 4)
    assert set(settings.database_backends) == {*DATABASE_BACKENDS, "archive"}
    assert open_backend(settings, 8).store.count() == 0


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"VECTOR_DB_TYPE": "oracle"}, "faiss, postgresql, remote, shadow"),
        ({"FARMING_GUIDE_TOP_KK": "3"}, "unknown setting 'top_kk'"),
        ({"FARMING_GUIDE_TOP_K": "many"}, "'top_k'"),
        ({"FARMING_GUIDE_CONFIG": "/nowhere.toml"}, "/nowhere.toml"),
        ({"FARMING_GUIDE_DATABASE_BACKENDS": "x"}, r"write \[database_backends\.NAME\]"),
    ],
)
def test_a_bad_setting_is_named(environment: dict[str, str], says: str) -> None:
    """The error says which key, and what is allowed."""
    with pytest.raises(ConfigurationError, match=says):
        load_settings(environment)


def test_postgresql_without_a_dsn_says_which_variable() -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        open_backend(load_settings({}), 8, name="postgresql")


def test_a_backend_that_does_not_fit_is_explained() -> None:
    """A setting that the class does not take, and a class that the module does not have."""
    settings = load_settings({})
    with pytest.raises(ConfigurationError, match="colour"):
        open_backend(settings, 8, name="faiss", colour="red")
    with pytest.raises(ConfigurationError, match="known are: faiss, postgresql, remote, shadow"):
        open_backend(settings, 8, name="oracle")
    for module, says in (("farming_guide.faiss_backend", "lacks"), ("no_such_module", "needs")):
        backends = {"odd": {"class": "Missing", "module": module}}
        odd = settings.model_validate({"database_backends": backends, "vector_db_type": "odd"})
        with pytest.raises(ConfigurationError, match=says):
            open_backend(odd, 8)

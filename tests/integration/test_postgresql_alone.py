"""When the migration is over: the bot on PostgreSQL alone, router and FAISS not to be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from farming_guide.local_embedder import LocalEmbedder
from farming_guide.postgresql_backend import PostgresqlBackend
from tests.fakes.handbook import filled

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("shadow", "faiss"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from farming_guide.cli import main
sys.argv = ["farming-guide", *sys.argv[1:]]
main()
"""


def ask(
    environment: dict[str, str], *arguments: str, said: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, *arguments],
        env={**os.environ, **environment},
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_bot_answers_without_router_and_faiss(
    postgresql_dsn: str, fresh_table: str, tmp_path: Path
) -> None:
    """Questions, commands and new documents work; choosing the router is refused in words."""
    embedder = LocalEmbedder()
    backend = PostgresqlBackend(
        dimension=embedder.dimension, table_name=fresh_table, database_url=postgresql_dsn
    )
    filled(backend.store, embedder, tmp_path / "handbook")
    backend.store.close()
    config = tmp_path / "bot.toml"
    config.write_text(
        f'handbook = "{tmp_path / "handbook"}"\n'
        'open_meteo_url = "http://127.0.0.1:9"\n'
        "[database_backends.postgresql]\n"
        'class = "PostgresqlBackend"\nmodule = "farming_guide.postgresql_backend"\n'
        f'settings = {{ table_name = "{fresh_table}" }}\n'
    )
    environment = {
        "VECTOR_DB_TYPE": "postgresql",
        "DATABASE_URL": postgresql_dsn,
        "FARMING_GUIDE_CONFIG": str(config),
        "OPENAI_API_KEY": "",
    }
    answered = ask(environment, "ask", "How far apart is maize planted?")
    assert answered.returncode == 0, answered.stderr
    assert "one seed every 25 cm" in answered.stdout
    assert "Guide to maize, page 1" in answered.stdout
    talked = ask(environment, "chat", said="/status\n/weather Lilongwe\n/varieties maize\n")
    assert "Answers come from: postgresql" in talked.stdout
    assert "The weather service cannot be reached" in talked.stdout
    assert "SC 403" in talked.stdout
    again = ask(environment, "ingest", str(tmp_path / "pdf"))
    assert "0 changed, 0 removed, 7 unchanged" in again.stdout, again.stdout + again.stderr
    refused = ask({**environment, "VECTOR_DB_TYPE": "shadow"}, "ask", "maize?")
    assert refused.returncode == 2
    assert "shadow is blocked" in refused.stderr
    wrong = ask({**environment, "DATABASE_URL": "postgresql://u:pw@127.0.0.1:9/x"}, "ask", "maize?")
    assert wrong.returncode == 1
    assert "pw" not in wrong.stderr.replace("pwd", "")
    assert "Traceback" not in refused.stderr + wrong.stderr

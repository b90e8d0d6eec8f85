"""The command `farming-guide` as its maintainer runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.fakes.handbook import write_handbook

COMMANDS = ("chat", "ask", "ingest", "build", "telegram")


def run(*arguments: str, said: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    given = {"OPENAI_API_KEY": "", "DATABASE_URL": "", "TELEGRAM_BOT_TOKEN": "", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "farming_guide.cli", *arguments],
        env={**os.environ, **given, **environment},
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_teaches_every_command() -> None:
    """Each command is listed, and the settings and exit codes are told."""
    told = run("--help").stdout
    assert all(command in told for command in COMMANDS)
    assert "VECTOR_DB_TYPE=faiss|postgresql|shadow" in told
    assert "Exit codes" in told


def test_build_then_ask_then_ingest_on_faiss_alone(tmp_path: Path) -> None:
    """A knowledge base is made, asked with a filter, and brought up to date."""
    write_handbook(tmp_path / "handbook")
    config = tmp_path / "bot.toml"
    config.write_text(
        f'vector_db_type = "faiss"\nhandbook = "{tmp_path / "handbook"}"\n'
        "[database_backends.faiss]\n"
        'class = "FaissBackend"\nmodule = "farming_guide.faiss_backend"\n'
        f'settings = {{ storage_path = "{tmp_path / "kb"}" }}\n'
    )
    own = {"FARMING_GUIDE_CONFIG": str(config)}
    built = run("build", str(tmp_path / "kb"), **own)
    assert "7 chunks of 4 guides" in built.stdout, built.stderr
    asked = run("ask", "how do I plant", "--crop", "groundnuts", **own)
    assert "10 to 15 cm apart" in asked.stdout, asked.stderr
    assert "[1] Guide to groundnuts, page 1" in asked.stdout
    extra = tmp_path / "bees.md"
    extra.write_text(
        "---\ntitle: Bees\n---\n## Hives\nHang a top-bar hive in the shade of a tree.\n"
    )
    for expected in ("1 changed, 0 removed, 0 unchanged", "0 changed, 0 removed, 1 unchanged"):
        taken = run("ingest", str(extra), **own)
        assert expected in taken.stdout, taken.stderr
    assert "top-bar hive" in run("ask", "Where do I hang a hive?", **own).stdout
    extra.write_text("---\ntitle: Bees\n---\n## Hives\nHang a top-bar hive near water.\n")
    assert "1 changed, 1 removed" in run("ingest", str(extra), **own).stdout


def test_what_is_wrong_is_one_line_and_code_2(tmp_path: Path) -> None:
    """Bad settings and bad input start nothing and show no traceback."""
    bad_pdf = tmp_path / "bad.pdf"
    bad_pdf.write_bytes(b"no pdf")
    faiss = {"VECTOR_DB_TYPE": "faiss", "FARMING_GUIDE_CONFIG": ""}
    for arguments, environment, says in (
        (("ask", "x"), {"VECTOR_DB_TYPE": "oracle"}, "VECTOR_DB_TYPE"),
        (("telegram",), faiss, "BotFather"),
        (("ask", "x"), {"VECTOR_DB_TYPE": "postgresql"}, "DATABASE_URL"),
        (("ask", "x", "--crop", "vanilla"), faiss, "vanilla"),
        (("build", str(tmp_path / "kb"), "--kind", "pq"), faiss, "flat, ivf, hnsw"),
        (
            ("build", str(tmp_path / "kb"), "--handbook", str(tmp_path / "none")),
            faiss,
            "no Markdown",
        ),
        (("ingest", str(bad_pdf)), faiss, "bad.pdf"),
    ):
        result = run(*arguments, **environment)
        assert result.returncode == 2, (arguments, result.stderr)
        lines = [line for line in result.stderr.splitlines() if line.startswith("farming-guide: ")]
        assert len(lines) == 1
        assert says in lines[0]
        assert "Traceback" not in result.stderr

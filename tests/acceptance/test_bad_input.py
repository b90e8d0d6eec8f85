"""Bad input: one clear line, exit code 2, and nothing changed."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import psycopg
import pytest
from psycopg import conninfo

from tests.acceptance.operator import Operator
from tests.acceptance.test_migration import DIMENSION, ROWS, chunks, vectors
from tests.foreign.layouts import write_bot_layout

Spoil = Callable[[Path], None]


class Malicious:
    """Would make a file if it were unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.witness),))


def malicious(index: Path) -> None:
    payload = {"metadata": Malicious(index / "RAN"), "id_to_chunk": {}, "dimension": DIMENSION}
    (index / "faiss_index_flat.metadata").write_bytes(pickle.dumps(payload, protocol=4))


def truncated(index: Path) -> None:
    path = index / "faiss_index_flat.index"
    path.write_bytes(path.read_bytes()[:-1000])


def other_length(index: Path) -> None:
    write_bot_layout(index, "flat", vectors(ROWS + 1, DIMENSION), chunks(ROWS + 1))
    found = faiss.IndexFlatIP(DIMENSION)
    found.add(vectors(ROWS, DIMENSION))
    faiss.write_index(found, str(index / "faiss_index_flat.index"))


def not_a_number(index: Path) -> None:
    spoiled = vectors(ROWS, DIMENSION)
    spoiled[7, 3] = np.nan
    write_bot_layout(index, "flat", spoiled, chunks(ROWS))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (malicious, "mkdir"),
        (truncated, "faiss_index_flat.index"),
        (other_length, "401"),
        (not_a_number, "NaN"),
    ],
)
def test_an_index_that_cannot_be_taken_in_is_refused(
    spoil: Spoil, says: str, tmp_path: Path
) -> None:
    """The reason is named, nothing is run, and the next try with a good index works."""
    index = tmp_path / "index"
    index.mkdir()
    write_bot_layout(index, "flat", vectors(ROWS, DIMENSION), chunks(ROWS))
    spoil(index)
    before = {path.name: path.read_bytes() for path in index.iterdir()}
    operator = Operator(
        tmp_path, {"SHADOW_FAISS__PATH": str(index), "DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}
    )
    result = operator.run("status")
    assert result.returncode == 2, result.stderr
    assert one_line(result.stderr)
    assert says in result.stderr
    assert not (index / "RAN").exists()
    assert {path.name: path.read_bytes() for path in index.iterdir()} == before
    (index / "faiss_index_flat.metadata").unlink()
    write_bot_layout(index, "flat", vectors(ROWS, DIMENSION), chunks(ROWS))
    assert operator.run("status").returncode == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"SHADOW_GATE__RECAL_MIN": "0.9"}, "recall_min"),
        ({"SHADOW_GATE__RECALL_MIN": "1.5"}, "less than 1"),
        ({"SHADOW_FAISS__DIMENSION": "7"}, "dimension"),
        ({"PRIMARY": "pgsql"}, "'faiss', 'postgresql' or 'auto'"),
        ({"DATABASE_URL": "not a dsn"}, "DSN"),
    ],
)
def test_a_setting_that_is_wrong_is_named(
    settings: dict[str, str], says: str, tmp_path: Path
) -> None:
    """The key, and what would be right."""
    index = tmp_path / "index"
    index.mkdir()
    write_bot_layout(index, "flat", vectors(ROWS, DIMENSION), chunks(ROWS))
    operator = Operator(tmp_path, {"SHADOW_FAISS__PATH": str(index), **settings})
    result = operator.run("backfill")
    assert result.returncode == 2, result.stderr
    assert one_line(result.stderr)
    assert says in result.stderr


@pytest.fixture
def refusals(postgresql_dsn: str) -> dict[str, tuple[str, str]]:
    """DSNs that must be refused, and a word of the reason."""
    admin = conninfo.conninfo_to_dict(postgresql_dsn)
    with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
        for name in ("refused_bare", "refused_rights"):
            connection.execute(f"DROP DATABASE IF EXISTS {name}")
            connection.execute(f"CREATE DATABASE {name}")
        connection.execute("DROP ROLE IF EXISTS refused_role")
        connection.execute("CREATE ROLE refused_role LOGIN PASSWORD 'little-secret'")
        connection.execute("REVOKE ALL ON DATABASE refused_rights FROM PUBLIC")
        connection.execute("GRANT CONNECT ON DATABASE refused_rights TO refused_role")
    with psycopg.connect(
        conninfo.make_conninfo(postgresql_dsn, dbname="refused_rights"), autocommit=True
    ) as made:
        made.execute("CREATE EXTENSION vector")
        made.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    place = f"{admin['host']}:{admin['port']}"
    return {
        "wrong password": (
            f"postgresql://{admin['user']}:planted-secret@{place}/{admin['dbname']}",
            "password",
        ),
        "no permission": (
            f"postgresql://refused_role:little-secret@{place}/refused_rights",
            "permission",
        ),
        "no pgvector": (f"postgresql://refused_role:little-secret@{place}/refused_bare", "vector"),
    }


@pytest.mark.parametrize("dsn", ["", "postgresql://u:se@cret@h/x", "postgresql://u:se@c?cret@h/x"])
def test_a_dsn_that_is_refused_is_no_reason_not_to_tell_the_status(
    dsn: str, tmp_path: Path
) -> None:
    """Of FAISS, which answers; what is wrong is in it, without a part of the password."""
    operator = Operator(tmp_path, {"SHADOW_FAISS__DIMENSION": "8", "DATABASE_URL": dsn})
    result = operator.run("status")
    assert result.returncode == 0, result.stderr
    assert "unavailable: the PostgreSQL DSN" in result.stdout
    assert "cret" not in result.stderr + result.stdout


@pytest.mark.parametrize("kind", ["wrong password", "no permission", "no pgvector"])
def test_a_server_that_does_not_serve_is_refused_in_words(
    kind: str, refusals: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    """The reason, with the password masked; FAISS is untouched and goes on answering."""
    index = tmp_path / "index"
    index.mkdir()
    write_bot_layout(index, "flat", vectors(ROWS, DIMENSION), chunks(ROWS))
    dsn, says = refusals[kind]
    operator = Operator(tmp_path, {"SHADOW_FAISS__PATH": str(index), "DATABASE_URL": dsn})
    operator.run("status")
    result = operator.run("backfill")
    assert result.returncode == 2, result.stderr
    assert one_line(result.stderr)
    assert says in result.stderr
    assert "secret" not in result.stderr + result.stdout
    assert operator.status()["phase"] == "faiss"


@pytest.mark.parametrize(
    "command",
    ["status", "backfill", "verify", "report", "repair", "backup", "rollback", "replay x.jsonl",
     "restore 20260101T000000Z --yes"],
)  # fmt: skip
def test_a_state_directory_that_cannot_be_written_to_is_named(tmp_path: Path, command: str) -> None:
    """Of another account or read-only: which file, why, and what to do. In Linux's own file systems
    nobody may make a file, root neither."""
    operator = Operator(tmp_path, {"SHADOW_FAISS__DIMENSION": "8"})
    result = operator.run(*command.split(), SHADOW_STATE_DIRECTORY="/sys/kernel")
    assert result.returncode == 2, result.stderr
    assert one_line(result.stderr)
    assert "/sys/kernel/running.lock" in result.stderr
    assert "state_directory" in result.stderr


@pytest.mark.parametrize("command", ["status", "status --json", "settings"])
def test_an_output_that_takes_nothing_is_told_in_words(tmp_path: Path, command: str) -> None:
    """A full disk under a redirected output: one line, and the exit code of what may succeed later."""
    operator = Operator(tmp_path, {"SHADOW_FAISS__DIMENSION": "8"})
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "shadow", *command.split()],
            cwd=tmp_path,
            env=operator.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (result.returncode, result.stderr) == (1, "shadow: No space left on device\n")


def test_a_backup_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    """The name that was given, and those that there are."""
    operator = Operator(tmp_path, {"SHADOW_FAISS__DIMENSION": "8"})
    operator.run("status")
    result = operator.run("restore", "20260101T000000Z", "--yes")
    assert result.returncode == 2
    assert "there is no backup '20260101T000000Z'" in result.stderr


def one_line(text: str) -> bool:
    """Whether the error is one line and no traceback; what the intake noted may stand before it."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "Traceback" not in text and sum(line.startswith("shadow: ") for line in lines) == 1

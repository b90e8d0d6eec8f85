"""Folders that LangChain's and LlamaIndex's real FAISS classes saved are taken in without loss."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import venv
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shadow.config_sources import load_settings
from shadow.service import open_router
from tests.acceptance.operator import Operator
from vectorstore import Query
from vectorstore.faiss.intake import take_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REQUIREMENTS = [
    "faiss-cpu==1.15.1",
    "langchain-community==0.4.2",
    "llama-index-vector-stores-faiss==0.7.0",
]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders, made in an environment of their own; skipped when it cannot be installed."""
    home = tmp_path_factory.mktemp("foreign")
    venv.create(home / "venv", with_pip=True)
    python = home / "venv" / "bin" / "python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *REQUIREMENTS],
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    if installed.returncode:
        pytest.skip(f"cannot install {' '.join(REQUIREMENTS)}: {installed.stderr[-300:]}")
    script = Path(__file__).with_name("make_foreign_folders.py")
    subprocess.run([python, "-W", "ignore", script, home], check=True, timeout=120)
    return home


@pytest.mark.parametrize("name", ["langchain", "langchain_ip", "llamaindex"])
def test_a_real_folder_is_taken_in_bit_exact_with_recall_one(
    name: str, foreign: Path, tmp_path: Path
) -> None:
    """Every vector to the bit, every text and metadata, and the same answers in the same order."""
    facts: dict[str, Any] = json.loads((foreign / f"{name}.json").read_text(encoding="utf-8"))
    arrays = np.load(foreign / f"{name}.npz")
    store = take_in(foreign / name, copy_to=tmp_path / "backup").store

    assert store.count() == len(facts["ids"])
    for record, record_id, text, metadata, vector in zip(
        store.get(facts["ids"]),
        facts["ids"],
        facts["texts"],
        facts["metadatas"],
        arrays["vectors"],
        strict=True,
    ):
        assert (record.id, record.text) == (record_id, text)
        assert metadata.items() <= dict(record.metadata).items()
        assert record.embedding.tobytes() == vector.tobytes()

    answers = store.search_many([Query(query, k=10) for query in arrays["queries"]])
    assert [[hit.id for hit in answer.hits] for answer in answers] == facts["answers"]


def test_nothing_of_the_frameworks_is_imported_to_read_their_folders(
    foreign: Path, tmp_path: Path
) -> None:
    """The side files are read as data: the pickle's classes are never loaded."""
    program = (
        "import sys, pathlib\n"
        "from vectorstore.faiss.intake import take_in\n"
        "take_in(pathlib.Path(sys.argv[1]), copy_to=pathlib.Path(sys.argv[2]))\n"
        "print(sorted(n for n in sys.modules if n.split('.')[0].startswith(('langchain', 'llama'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, foreign / "langchain", tmp_path / "backup"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["langchain", "langchain_ip", "llamaindex"])
def test_a_real_folder_migrates_by_command_with_recall_one_and_a_way_back(
    name: str, foreign: Path, tmp_path: Path, postgresql_dsn: str, fresh_table: str
) -> None:
    """Backfill, verify, cutover and rollback under live traffic: no read fails, and the framework's own
    answers come from FAISS, from PostgreSQL, and from FAISS again, in the same order."""
    facts: dict[str, Any] = json.loads((foreign / f"{name}.json").read_text(encoding="utf-8"))
    queries = np.load(foreign / f"{name}.npz")["queries"]
    operator = Operator(
        tmp_path,
        {
            "SHADOW_FAISS__PATH": str(foreign / name),
            "DATABASE_URL": postgresql_dsn,
            "SHADOW_POSTGRESQL__TABLE": fresh_table,
            "SHADOW_GATE__DISTINCT_QUERIES_MIN": "30",
        },
    )

    with (
        operator.application(queries, writes=False) as application,
        closing(open_router(load_settings(environment=operator.environment))) as router,
    ):

        def answered_by(store: str) -> list[list[str]]:
            deadline = time.monotonic() + 30
            while True:
                answers = [router.search(Query(query, k=10)) for query in queries]
                if {answer.store for answer in answers} == {store}:
                    return [[hit.id for hit in answer.hits] for answer in answers]
                assert time.monotonic() < deadline, f"{store} does not answer"

        operator.done("backfill")
        assert "clean" in operator.done("verify")
        operator.until("Pass", lambda found: found["verdict"] == "pass")
        recall = recall_shown(operator)
        assert answered_by("faiss") == facts["answers"]
        operator.done("cutover")
        assert answered_by("postgresql") == facts["answers"]
        operator.done("rollback")
        assert answered_by("faiss") == facts["answers"]
    assert recall == 1.0
    assert application.told()["failed"] == []
    assert "clean" in operator.done("verify")


def recall_shown(operator: Operator) -> float:
    """The mean recall of the parity report."""
    operator.done("report", "-o", "report")
    report = json.loads((operator.folder / "report" / "parity-report.json").read_text("utf-8"))
    (recall,) = [
        figure["mean"]
        for figure in report["figures"]
        if (figure["name"], figure["stratum"]) == ("recall", "all")
    ]
    return float(recall)

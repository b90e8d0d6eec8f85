"""The example scripts run as they are, offline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("script", "framework"),
    [("langchain_migration.py", "langchain_core"), ("haystack_migration.py", "haystack")],
)
def test_an_example_ends_on_postgresql_with_the_same_answers(script: str, framework: str) -> None:
    """Each script ends 0, says that the answers are the same, and reaches no other machine."""
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    nowhere = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / script],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **nowhere},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "the same answers from PostgreSQL"

"""The integrations stand on the port alone and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded_after(statement: str, *names: str) -> list[str]:
    """Which of the modules are loaded in a fresh interpreter that ran the statement."""
    program = f"{statement}\nimport sys\nprint(*[n for n in {names!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split()


def test_the_stores_do_not_load_a_framework() -> None:
    """Neither the package nor the integrations' folder imports LangChain or Haystack."""
    statement = "import vectorstore, vectorstore.integrations"
    assert loaded_after(statement, "langchain_core", "haystack") == []


@pytest.mark.parametrize(
    ("module", "framework"), [("langchain", "langchain_core"), ("haystack", "haystack")]
)
def test_an_integration_needs_neither_the_router_nor_a_backend(module: str, framework: str) -> None:
    """It survives the end of the migration, and of FAISS."""
    pytest.importorskip(framework, reason=f"the extra `{module}` is not installed")
    statement = f"import vectorstore.integrations.{module}"
    assert loaded_after(statement, framework, "shadow", "faiss", "psycopg") == [framework]


@pytest.mark.parametrize(
    ("module", "framework"), [("langchain", "langchain_core"), ("haystack", "haystack")]
)
def test_a_missing_framework_names_the_extra_to_install(module: str, framework: str) -> None:
    """The error says which command puts it right."""
    program = (
        f"import sys; sys.modules[{framework!r}] = None\nimport vectorstore.integrations.{module}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert f"pip install 'shadow-cutover[{module}]'" in done.stderr

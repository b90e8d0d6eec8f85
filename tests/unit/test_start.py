"""What starting a process loads: by modules, not by time."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "faiss", "fastapi", "haystack", "httpx", "langchain_core", "numpy", "onnxruntime", "openai",
    "psycopg", "psycopg_pool", "starlette", "tokenizers", "uvicorn",
)  # fmt: skip


def loaded_by(program: str) -> set[str]:
    """The heavy packages that a process has imported at the end of ``program``."""
    code = f"import sys\n{program}\nprint('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.rsplit("loaded:", 1)[1].split())


def test_importing_the_router_loads_nothing_heavy() -> None:
    """Neither stores nor web nor models, until something of them is asked for."""
    assert loaded_by("import shadow") == set()


def test_importing_the_stores_loads_nothing_heavy() -> None:
    """The errors alone are what a command line needs of them."""
    assert loaded_by("import vectorstore.errors") == set()
    assert "faiss" not in loaded_by("from vectorstore import Query, Record, VectorStore")


@pytest.mark.parametrize("words", [["--help"], ["backfill", "--help"], ["serve", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    """The command line says what there is without what does it."""
    program = (
        f"sys.argv = ['shadow', *{words!r}]\n"
        "from shadow.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert loaded_by(program) == set()


def test_every_name_of_the_stores_is_found() -> None:
    """What is looked up when asked for is all there, and nothing else is."""
    import vectorstore

    for name in vectorstore.__all__:
        assert getattr(vectorstore, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        vectorstore.Nothing  # noqa: B018

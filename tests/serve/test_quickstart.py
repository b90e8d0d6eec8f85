"""The quickstart, as it stands on its page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shadow.serve.server import listening

PAGE = Path(__file__).resolve().parents[2] / "docs" / "quickstart.md"

pytestmark = pytest.mark.slow


def test_every_command_of_the_quickstart_works(tmp_path: Path) -> None:
    """One after the other in an empty folder: FAISS answers, PostgreSQL answers, FAISS answers again."""
    with listening("127.0.0.1", 0) as free:
        port = str(free.getsockname()[1])
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 5
    script = "\n".join(blocks).replace("8080", port)
    script = script.replace("shadow serve &", f"shadow serve --port {port} &")
    environment = {
        **{name: value for name, value in os.environ.items()
           if not name.startswith("SHADOW_") and name not in ("DATABASE_URL", "PRIMARY")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n{script}"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    stores = re.findall(r'"store":"(\w+)"', done.stdout)
    assert stores == ["faiss", "postgresql"]
    assert "clean: both stores hold the same 30 rows" in done.stdout
    assert "FAISS is the primary" in done.stdout
    assert (tmp_path / ".shadow" / "report" / "parity-report.html").exists()

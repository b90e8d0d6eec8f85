"""The OpenAPI description held against the running proxy by schemathesis, with inputs that it makes up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.running import (
    CONTROL_TOKEN,
    WRITE_TOKEN,
    migrate_to_shadow,
    running,
    settings_for,
)

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
# JSON Schema cannot say that a vector under cosine must not be zero, that a number must fit in 32 bits or
# that the migration must stand where a decision can be taken: these are told as 422 and 409.
NOT_CHECKED = "positive_data_acceptance"


def fuzz(
    url: str, directory: Path, *, phases: str, examples: int = 1, timeout_s: float = 180.0
) -> None:
    """Every check of schemathesis but one, on every address but the endless one, the same each time."""
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION),
            "run", f"{url}/openapi.json", "--no-color",
            "--checks", "all", "--exclude-checks", NOT_CHECKED,
            "--exclude-path", "/v1/events", "--continue-on-failure",
            "--phases", phases, "--max-examples", str(examples), "--seed", "1", "--generation-deterministic",
        ],
        cwd=directory, capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert "Tested: 21" in done.stdout, done.stdout[-2_000:]


def test_what_is_described_is_what_is_answered(tmp_path: Path) -> None:
    """No 5xx but a 503 that says when to come back; no status, type or shape that is not described; what
    breaks the description is refused; a token that is missing is missed."""
    settings = settings_for(
        tmp_path / "state", serve={"control_token": CONTROL_TOKEN, "write_token": WRITE_TOKEN}
    )
    with running(settings) as proxy:
        fuzz(proxy.url, tmp_path, phases="coverage")
        # With the write token something is written, and not only refused.
        assert proxy.migration.journal.head() > 0
        assert proxy.client.get("/readyz").status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_holds_in_the_midst_of_a_migration(
    postgresql_dsn: str, fresh_table: str, tmp_path: Path
) -> None:
    """The same with PostgreSQL mirrored to, so that decisions are taken and not only refused."""
    settings = settings_for(
        tmp_path / "state",
        postgresql={"dsn": postgresql_dsn, "table": fresh_table},
        serve={"control_token": CONTROL_TOKEN, "write_token": WRITE_TOKEN},
    )
    with running(settings) as proxy:
        migrate_to_shadow(proxy)
        fuzz(
            proxy.url,
            tmp_path,
            phases="examples,coverage,fuzzing",
            examples=100,
            timeout_s=800,
        )
        assert proxy.client.get("/readyz").status_code == 200

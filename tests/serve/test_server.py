"""The command `shadow serve` as a process of its own: ready, draining, gone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.serve.running import DIMENSION, NOWHERE, eventually


@contextmanager
def served(
    directory: Path, *, control_token: str = ""
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command, and the address that it says it serves at."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SHADOW_")},
        "SHADOW_STATE_DIRECTORY": str(directory / "state"),
        "SHADOW_FAISS__DIMENSION": str(DIMENSION),
        "DATABASE_URL": NOWHERE,
        **({"SHADOW_SERVE__CONTROL_TOKEN": control_token} if control_token else {}),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "shadow", "serve", "--port", "0"],
        cwd=directory,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        told = ""
        for line in process.stderr:
            told += line
            if line.startswith("serving at "):
                break
        assert "serving at http://127.0.0.1:" in told, told
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield told.rpartition("serving at ")[2].strip(), process
    finally:
        process.kill()
        process.wait()


def test_what_is_under_way_ends_before_the_proxy_does(tmp_path: Path) -> None:
    """After SIGTERM a request under way is answered, a new one is not, and the exit code is 0."""
    with served(tmp_path) as (url, process):
        with httpx.Client(base_url=url, trust_env=False) as client:
            assert client.get("/readyz").status_code == 200
            late = {"vector": [1.0] * DIMENSION, "min_seq": 1_000, "timeout_ms": 1_500}
            found: list[httpx.Response] = []
            under_way = threading.Thread(
                target=lambda: found.append(
                    httpx.post(f"{url}/v1/search", json=late, timeout=10, trust_env=False)
                )
            )
            stream = client.stream("GET", "/v1/events")
            events = stream.__enter__()
            next(events.iter_bytes())
            under_way.start()
            eventually(lambda: _under_way(url) >= 1)
            process.send_signal(signal.SIGTERM)
            under_way.join(10)
            assert [response.status_code for response in found] == [503]
            assert found[0].json()["type"] == "/problems/deadline-exceeded"
            stream.__exit__(None, None, None)
        assert process.wait(10) == 0


def _under_way(url: str) -> int:
    metrics = httpx.get(f"{url}/metrics", trust_env=False).text
    return int(float(re.search(r"^shadow_http_requests_in_progress (.*)$", metrics, re.M)[1]))

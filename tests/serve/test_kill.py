"""The proxy killed again and again under a client that retries: nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from shadow.serve.server import listening
from shadow.writes.journal import Journal
from tests.serve.running import DIMENSION, NOWHERE
from vectorstore.remote import RemoteStore
from vectorstore.types import Record

pytestmark = pytest.mark.slow

KILLS = 6
WRITES = 400


def test_writes_survive_kill_9(tmp_path: Path) -> None:
    """Every acknowledged write is in the journal once, at the seq that was acknowledged."""
    with listening("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "SHADOW_STATE_DIRECTORY": str(tmp_path / "state"),
        "SHADOW_FAISS__DIMENSION": str(DIMENSION),
        "DATABASE_URL": NOWHERE,
    }

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "shadow", "serve", "--port", str(port)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    process = start()
    acknowledged: dict[str, int] = {}

    def write(writer: int) -> None:
        store = RemoteStore(f"http://127.0.0.1:{port}", retry_ms=60_000)
        for n in range(WRITES // 4):
            name = f"w{writer}-{n}"
            vector = np.random.default_rng(n).normal(size=DIMENSION).astype(np.float32)
            acknowledged[name] = store.upsert([Record(name, vector, "text", {})])
            time.sleep(0.02)
        store.close()

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    kills = 0
    try:
        while any(writer.is_alive() for writer in writers) and kills < KILLS:
            before = len(acknowledged)
            deadline = time.monotonic() + 30
            while len(acknowledged) < before + 20 and any(w.is_alive() for w in writers):
                assert time.monotonic() < deadline, "no write is acknowledged any more"
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            process = start()
        for writer in writers:
            writer.join(120)
        store = RemoteStore(f"http://127.0.0.1:{port}", retry_ms=60_000)
        found = {record.id for record in store.scan(limit=2 * WRITES)}
        store.close()
    finally:
        process.kill()
        process.wait()
    assert kills == KILLS
    assert len(acknowledged) == WRITES
    journal = Journal.open(tmp_path / "state")
    written: list[tuple[str, int]] = []
    while entries := journal.read(written[-1][1] if written else 0):
        written += [(entry.id, entry.seq) for entry in entries]
    journal.close()
    assert len(written) == WRITES, "a retried write was made twice, or one was lost"
    assert dict(written) == acknowledged
    assert found == set(acknowledged)

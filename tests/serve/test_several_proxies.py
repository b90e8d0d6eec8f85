"""Several proxies over one state directory: writes, decisions and evidence are shared."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.serve.running import CONTROL_TOKEN, DIMENSION, eventually
from tests.serve.test_server import served

pytestmark = pytest.mark.slow

VECTOR = [1.0] * DIMENSION


def test_two_proxies_are_one_service(tmp_path: Path) -> None:
    """What one acknowledged the other answers with (at once, if asked for it); what was decided on one
    is in force on the other within a second or two; and when one is killed the other has everything."""
    with ExitStack() as stack:
        one_url, one = stack.enter_context(served(tmp_path, control_token=CONTROL_TOKEN))
        other_url, _ = stack.enter_context(served(tmp_path, control_token=CONTROL_TOKEN))
        first = stack.enter_context(httpx.Client(base_url=one_url, trust_env=False))
        second = stack.enter_context(httpx.Client(base_url=other_url, trust_env=False))
        for n in range(20):
            record = {"id": f"r{n}", "vector": VECTOR, "text": f"text {n}"}
            written = first.post("/v1/records", json={"records": [record], "op_id": f"op-{n}"})
            seq = written.json()["seq"]
            asked = {"vector": VECTOR, "k": 50, "min_seq": seq}
            found = second.post("/v1/search", json=asked).json()
            assert f"r{n}" in {hit["id"] for hit in found["hits"]}
        # A retry that reaches the other proxy is the same write.
        again = second.post("/v1/records", json={"records": [record], "op_id": "op-19"})
        assert again.json()["seq"] == seq
        decided = first.post(
            "/v1/control/mirror-rate",
            json={"route_version": first.get("/v1/status").json()["route_version"],
                  "why": "less load", "rate": 0.25},
            headers={"authorization": f"Bearer {CONTROL_TOKEN}"},
        )  # fmt: skip
        assert decided.status_code == 200
        eventually(lambda: second.get("/v1/status").json()["mirror_rate"] == 0.25, within_s=5)
        assert "less load" in second.get("/").text
        one.send_signal(signal.SIGKILL)
        one.wait()
        assert second.post("/v1/count", json={}).json() == {"count": 20}
        last = second.post("/v1/records", json={"records": [{"id": "last", "vector": VECTOR}]})
        assert last.json()["seq"] == seq + 1

"""What the addresses of the proxy do, as a client in any language sees it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.serve.running import DIMENSION, Running, running, settings_for


@pytest.fixture(scope="module")
def filled(proxy: Running) -> Running:
    random = np.random.default_rng(3)
    records = [
        {
            "id": f"r{n:02d}",
            "vector": random.normal(size=DIMENSION).tolist(),
            "text": f"text {n}",
            "metadata": {"n": n, "even": n % 2 == 0, "big": 2**70},
        }
        for n in range(20)
    ]
    assert proxy.client.post("/v1/records", json={"records": records}).status_code == 200
    return proxy


def test_the_forms_of_a_vector_give_the_same_answer(filled: Running) -> None:
    """Numbers, base64 and raw bytes of little-endian float32."""
    vector = np.random.default_rng(4).normal(size=DIMENSION).astype("<f4")
    import base64

    answers = [
        filled.client.post("/v1/search", json={"vector": vector.tolist(), "k": 5}).json(),
        filled.client.post(
            "/v1/search",
            json={"vector_base64": base64.b64encode(vector.tobytes()).decode(), "k": 5},
        ).json(),
        filled.client.post(
            "/v1/search/binary",
            params={"k": 5},
            content=vector.tobytes(),
            headers={"content-type": "application/octet-stream"},
        ).json(),
    ]
    assert answers[0]["store"] == "faiss"
    assert len(answers[0]["hits"]) == 5
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["hits"][0]["metadata"]["big"] == 2**70


def test_filters_reach_the_store(filled: Running) -> None:
    """In JSON and in the query of the binary address."""
    vector = np.ones(DIMENSION, "<f4")
    found = filled.client.post(
        "/v1/search", json={"vector": vector.tolist(), "k": 20, "filter": {"even": True}}
    ).json()
    binary = filled.client.post(
        "/v1/search/binary",
        params={"k": 20, "filter": json.dumps({"even": True})},
        content=vector.tobytes(),
        headers={"content-type": "application/octet-stream"},
    ).json()
    assert len(found["hits"]) == 10
    assert binary["hits"] == found["hits"]
    assert filled.client.post("/v1/count", json={"filter": {"n": [1, 2]}}).json() == {"count": 2}


def test_a_filter_that_nests_too_deeply_is_told_so(filled: Running) -> None:
    """As any other text that is no filter, and not as a fault of the proxy's."""
    found = filled.client.post(
        "/v1/search/binary",
        params={"filter": "[" * 15_000},
        content=np.ones(8, dtype=np.float32).tobytes(),
        headers={"content-type": "application/octet-stream"},
    )
    assert (found.status_code, found.json()["type"]) == (422, "/problems/invalid-input")


def test_the_proxy_answers_while_a_decision_waits_for_the_journal(filled: Running) -> None:
    """Whoever asks whether it is ready may wait for the route; nobody else does."""
    with ThreadPoolExecutor(1) as other:
        with filled.migration.routes._lock:
            ready = other.submit(filled.client.get, "/readyz", timeout=30)
            assert filled.client.get("/healthz", timeout=10).status_code == 200
            assert not ready.done()
        assert ready.result(timeout=30).status_code == 200


def test_pages_get_and_delete(filled: Running) -> None:
    """Scan walks all ids; get keeps the order; delete forgives ids that are not there."""
    walked, after = [], ""
    while page := filled.client.get("/v1/records", params={"after": after, "limit": 7}).json()[
        "records"
    ]:
        walked += [record["id"] for record in page]
        after = walked[-1]
    assert walked == sorted(walked)
    assert set(walked) >= {f"r{n:02d}" for n in range(20)}
    found = filled.client.post(
        "/v1/records/get", json={"ids": ["r03", "nobody", "r01"], "vectors": True}
    ).json()["records"]
    assert [record["id"] for record in found] == ["r03", "r01"]
    assert found[0]["vector_base64"]
    answer = filled.client.post("/v1/records/delete", json={"ids": ["r19", "nobody"]})
    assert answer.json()["seq"] > 0
    assert filled.client.post("/v1/records/get", json={"ids": ["r19"]}).json() == {"records": []}


def test_a_retry_with_the_same_operation_id_is_the_same_write(proxy: Running) -> None:
    """The second time nothing is written, and the acknowledgement is the first one's."""
    body = {"records": [{"id": "op", "vector": [1.0] * DIMENSION}], "op_id": "once"}
    first = proxy.client.post("/v1/records", json=body).json()
    head = proxy.migration.journal.head()
    assert proxy.client.post("/v1/records", json=body).json() == first
    assert proxy.migration.journal.head() == head


def test_text_needs_an_embedding_model(proxy: Running) -> None:
    """Without one the refusal says which setting is missing."""
    refused = proxy.client.post("/v1/search", json={"text": "maize"})
    assert refused.status_code == 422
    assert "serve.embedder" in refused.json()["detail"]


class Letters:
    """An embedding model: counts letters."""

    def embed(self, texts: list[str]) -> np.ndarray:
        return np.array(
            [[1 + text.count(letter) for letter in "abcdefgh"] for text in texts], np.float32
        )


def test_text_is_embedded_where_a_model_is_configured(tmp_path: Path) -> None:
    """The model that the settings name turns the text into the vector."""
    settings = settings_for(tmp_path, serve={"embedder": f"{__name__}:Letters"})
    with running(settings) as proxy:
        vectors = {"aaaa": [5, 1, 1, 1, 1, 1, 1, 1], "hhhh": [1, 1, 1, 1, 1, 1, 1, 5]}
        proxy.client.post(
            "/v1/records",
            json={"records": [{"id": name, "vector": v} for name, v in vectors.items()]},
        )
        found = proxy.client.post("/v1/search", json={"text": "hhh", "k": 1}).json()
        assert [hit["id"] for hit in found["hits"]] == ["hhhh"]


def test_the_description_is_complete(proxy: Running) -> None:
    """OpenAPI names every address, with examples, problems and who needs a token."""
    described = proxy.client.get("/openapi.json").json()
    assert set(described["paths"]) >= {
        "/v1/search",
        "/v1/search/batch",
        "/v1/search/binary",
        "/v1/records",
        "/v1/records/get",
        "/v1/records/delete",
        "/v1/count",
        "/v1/info",
        "/v1/status",
        "/v1/report",
        "/v1/events",
        "/v1/control/cutover",
        "/v1/control/rollback",
        "/v1/control/ramp",
        "/v1/control/rehearse",
        "/v1/control/finalize",
        "/v1/control/mirror-rate",
        "/metrics",
        "/healthz",
        "/readyz",
    }
    assert described["paths"]["/v1/control/cutover"]["post"]["security"] == [{"control": []}]
    assert described["paths"]["/v1/records"]["post"]["security"] == [{"write": []}]
    assert "security" not in described["paths"]["/v1/search"]["post"]
    assert described["components"]["schemas"]["SearchRequest"]["examples"]
    for path, methods in described["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            refusals = {s: r for s, r in operation["responses"].items() if s > "400"}
            assert {"403", "421", "500"} <= set(refusals), path
            assert all(set(r["content"]) == {"application/problem+json"} for r in refusals.values())
            takes_values = "parameters" in operation or "requestBody" in operation
            assert ("422" in refusals) is takes_values, path
            assert ("401" in refusals) is ("security" in operation), path


def test_problem_types_can_be_looked_up(proxy: Running) -> None:
    """The type of a problem is an address that says what it stands for."""
    problem = proxy.client.get("/v1/nowhere").json()
    assert "nothing at this address" in proxy.client.get(problem["type"]).text


def test_events_tell_the_panels_and_the_status(proxy: Running, events_of) -> None:
    """A page that connects is sent every part, then the facts."""
    events = events_of(proxy, 12)
    names = {values["name"] for name, values in events if name == "panel"}
    assert {"verdict", "standing", "gate", "recall", "latency", "stores", "decisions"} <= names
    status = next(values for name, values in events if name == "status")
    assert status["phase"] == "faiss"
    assert {action["name"] for action in status["actions"]} >= {"cutover", "rollback"}
    assert all(action["will"] for action in status["actions"])


def test_head_is_answered_like_get_without_the_body(filled: Running) -> None:
    """Who watches the proxy asks so; an address that takes no GET, or never ends, takes no HEAD."""
    for address in ("/healthz", "/readyz", "/v1/status", "/v1/records?limit=1", "/metrics"):
        asked, looked = filled.client.get(address), filled.client.head(address)
        assert looked.status_code == asked.status_code == 200, address
        assert looked.headers["content-type"] == asked.headers["content-type"]
        assert looked.content == b""
    assert filled.client.head("/v1/search").status_code == 405
    assert filled.client.head("/v1/events").status_code == 405

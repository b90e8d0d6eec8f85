"""A whole migration decided over HTTP, as an operator's page does it."""

from __future__ import annotations

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.running import DIMENSION, Running, eventually, migrate_to_shadow


def search_until_ready(proxy: Running) -> None:
    """Send different searches until the gate says pass."""
    random = np.random.default_rng(11)

    def ready() -> bool:
        for _ in range(25):
            vector = random.normal(size=DIMENSION).tolist()
            assert proxy.client.post("/v1/search", json={"vector": vector}).status_code == 200
        return bool(proxy.client.get("/v1/status").json()["verdict"] == "pass")

    eventually(ready, within_s=20)


def metrics(proxy: Running) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = proxy.client.get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_migration_decided_over_http(migrating: Running) -> None:
    """Flip too early: refused with the reason. Evidence, rehearsal, flip, reverse shadow, rollback,
    each seen in the status, the metrics and the audit log."""
    client = migrating.client
    eventually(lambda: migrating.migration.postgresql.standing.state != "unavailable")
    refused = migrating.decide("cutover")
    assert refused.status_code == 409
    assert refused.json()["type"] == "/problems/cutover-refused"
    assert "backfill" in refused.json()["detail"]
    assert migrating.migration.routes.request().wanted == "faiss"

    migrate_to_shadow(migrating)
    early = migrating.decide("cutover")
    assert early.status_code == 409
    assert "queries" in early.json()["detail"]
    actions = {one["name"]: one for one in client.get("/v1/status").json()["actions"]}
    assert actions["cutover"]["refused"].startswith("Not yet")
    assert migrating.decide("rehearse").status_code == 409

    search_until_ready(migrating)
    status = client.get("/v1/status").json()
    assert {one["name"]: one["refused"] for one in status["actions"]}["cutover"] == ""
    assert status["server"]["table_bytes"] > 0
    # Metrics are a look of a moment ago.
    eventually(lambda: metrics(migrating)["shadow_mirror_compared_total", ()] >= 85, within_s=10)
    found = metrics(migrating)
    assert found["shadow_verdict", (("verdict", "pass"),)] == 1
    assert found["shadow_phase", (("phase", "shadow"),)] == 1
    assert found["shadow_store_up", (("store", "postgresql"),)] == 1
    assert found["shadow_recall_mean", ()] == 1
    assert found["shadow_lag_entries", (("store", "postgresql"),)] == 0
    compared = found["shadow_mirror_compared_total", ()]
    assert compared >= 85
    for store in ("faiss", "postgresql"):
        counted = found["shadow_mirrored_latency_seconds_count", (("store", store),)]
        assert counted >= 85
    assert found["shadow_pool_connections_limit", ()] == 8

    ramped = migrating.decide("ramp", share=0.5).json()
    assert ramped.get("phase") == "ramp", ramped
    assert migrating.decide("ramp", share=0).json()["phase"] == "shadow"
    rehearsed = migrating.decide("rehearse").json()
    assert rehearsed["result"]["ok"] is True
    assert rehearsed["phase"] == "shadow"

    flipped = migrating.decide("cutover", why="the gate says pass", operator="Chisomo").json()
    assert (flipped["phase"], flipped["primary"]) == ("postgresql", "postgresql")
    vector = [1.0] * DIMENSION
    eventually(
        lambda: client.post("/v1/search", json={"vector": vector}).json()["store"] == "postgresql"
    )
    page = client.get("/").text
    assert "Chisomo (over HTTP from 127.0.0.1)" in page
    assert migrating.decide("ramp", share=0.5).status_code == 409
    assert (
        metrics(migrating)["shadow_search_duration_seconds_count", (("store", "postgresql"),)] >= 1
    )

    back = migrating.decide("rollback", why="to show it").json()
    assert back["primary"] == "faiss"
    eventually(
        lambda: client.post("/v1/search", json={"vector": vector}).json()["store"] == "faiss"
    )
    report = client.get("/v1/report").json()
    whats = [entry["what"] for entry in report["audit"]]
    assert any(what.startswith("moved from postgresql to shadow") for what in whats)
    assert "rehearsed" in whats


def test_the_end_is_the_end(migrating: Running) -> None:
    """After finalize every decision is refused in words, and nothing is left wanted that cannot come."""
    migrate_to_shadow(migrating)
    search_until_ready(migrating)
    assert migrating.decide("cutover").status_code == 200
    assert migrating.decide("finalize", why="a month without trouble").json()["phase"] == "final"
    for action, more in (("rollback", {}), ("ramp", {"share": 0.5}), ("rehearse", {}),
                         ("mirror-rate", {"rate": 0.5}), ("finalize", {})):  # fmt: skip
        refused = migrating.decide(action, **more)
        assert refused.status_code == 409, (action, refused.text)
    status = migrating.client.get("/v1/status").json()
    assert status["wanted"] == "postgresql"
    assert status["waiting_for"] == []
    assert "is over" in status["may_flip"]
    found = migrating.client.post("/v1/search", json={"vector": [1.0] * DIMENSION}).json()
    assert found["store"] == "postgresql"


def test_a_wish_waits_when_told_to(migrating: Running) -> None:
    """With `wait` an early cutover is taken on, says what it waits for, and comes true by itself."""
    migrate_to_shadow(migrating)
    asked = migrating.decide("cutover", wait=True)
    assert asked.status_code == 200
    assert asked.json()["phase"] == "shadow"
    assert asked.json()["waiting_for"]
    random = np.random.default_rng(2)

    def flipped() -> bool:
        for _ in range(25):
            vector = random.normal(size=DIMENSION).tolist()
            migrating.client.post("/v1/search", json={"vector": vector})
        return bool(migrating.client.get("/v1/status").json()["phase"] == "postgresql")

    eventually(flipped, within_s=20)


def test_before_the_backfill_nothing_speaks_against_a_flip_but_its_time_has_not_come(
    migrating: Running,
) -> None:
    """A table that was never filled does not lag: the verdict is undecided, not hold."""
    eventually(lambda: migrating.migration.postgresql.standing.state == "empty")
    record = {"id": "a", "vector": [1.0] * DIMENSION}
    assert migrating.client.post("/v1/records", json={"records": [record]}).status_code == 200

    def status() -> dict[str, object]:
        return dict(migrating.client.get("/v1/status").json())

    head = migrating.migration.journal.head()
    stale_s = migrating.migration.settings.router.staleness_ms_max / 1e3
    lag = migrating.migration.lag
    eventually(lambda: (lag.oldest_unapplied_ms(head - 1) or 0) > stale_s * 1e3)
    found = status()
    assert (found["phase"], found["verdict"]) == ("faiss", "undecided")
    assert "holds no copy" in str(found["may_flip"])
    conditions = {
        one["name"]: one for one in migrating.client.get("/v1/report").json()["conditions"]
    }
    assert conditions["PostgreSQL is level with the journal"]["met"] is False

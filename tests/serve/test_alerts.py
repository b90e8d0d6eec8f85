"""The alert rules and the Grafana dashboard: they fire when they must, and name metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.running import Running

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "config" / "prometheus-alerts.yml"
TESTS = Path(__file__).with_name("prometheus_alerts_test.yml")
DASHBOARD = ROOT / "config" / "grafana-dashboard.json"
# Only where something was mirrored, verified or asked of PostgreSQL, which this proxy has not.
NOT_YET = {
    "shadow_gate_mean", "shadow_lag_entries", "shadow_lag_seconds", "shadow_recall_mean",
    "shadow_divergences_total", "shadow_verify_age_seconds", "shadow_verify_clean",
    "shadow_pool_connections", "shadow_pool_connections_in_use", "shadow_pool_waiting_callers",
    "shadow_postgresql_table_bytes", "shadow_postgresql_indexes_bytes",
    "shadow_postgresql_dead_rows", "shadow_postgresql_cache_hit_ratio",
    "shadow_mirrored_latency_seconds_bucket", "shadow_search_duration_seconds_bucket",
}  # fmt: skip


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\bshadow_[a-z0-9_]+", text))


def test_every_alert_fires_and_stays_quiet() -> None:
    """promtool runs a firing and a quiet case of each alert."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here; on Debian: apt-get install prometheus")
    done = subprocess.run(
        [promtool, "test", "rules", TESTS.name], cwd=TESTS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_both_cases() -> None:
    """No alert is left out of the unit tests."""
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert len(alerts) >= 8
    told = TESTS.read_text()
    for alert in alerts:
        assert f"name: {alert} fires" in told
        assert f"name: {alert} stays quiet" in told


@pytest.mark.parametrize("path", [RULES, DASHBOARD], ids=lambda path: path.name)
def test_alerts_and_dashboard_use_metrics_that_exist(path: Path, proxy: Running) -> None:
    """A metric that was renamed would leave an alert silent for ever."""
    proxy.client.post("/v1/search", json={"vector": [1.0] * 8})
    families = text_string_to_metric_families(proxy.client.get("/metrics").text)
    there = {sample.name for family in families for sample in family.samples}
    expressions = path.read_text()
    if path.suffix == ".json":
        found = json.loads(expressions)
        assert found["uid"]
        expressions = " ".join(
            target["expr"] for panel in found["panels"] for target in panel.get("targets", [])
        )
    else:
        expressions = " ".join(re.findall(r"expr: (.*)", expressions))
    unknown = metrics_in(expressions) - there - NOT_YET
    assert not unknown


def test_metrics_keep_the_conventions(proxy: Running) -> None:
    """Every metric has a help text; counters end in _total, times in _seconds, sizes in _bytes."""
    text = proxy.client.get("/metrics").text
    families = list(text_string_to_metric_families(text))
    assert len(families) > 25
    for family in families:
        assert family.documentation
        assert family.name.startswith("shadow_")
        assert not re.search(r"_(ms|mb|kb|percent)(_|$)", family.name)
    assert "shadow_mirror_compared_total" in text

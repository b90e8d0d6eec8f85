"""The alert rules and the Grafana dashboard: they fire when they must, and name metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.plugins.postgresql import drop_tables
from tests.serve.running import (
    DIMENSION,
    Running,
    eventually,
    migrate_to_shadow,
    running,
    settings_for,
)

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "config" / "prometheus-alerts.yml"
TESTS = Path(__file__).with_name("prometheus_alerts_test.yml")
DASHBOARD = ROOT / "config" / "grafana-dashboard.json"
SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "gauge": ("",),
}


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\bshadow_[a-z0-9_]+", text))


def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not here; on Debian: apt-get install prometheus")
    return found


def test_every_alert_fires_and_stays_quiet() -> None:
    """promtool runs a firing and a quiet case of each alert."""
    done = subprocess.run(
        [promtool(), "test", "rules", TESTS.name], cwd=TESTS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_both_cases() -> None:
    """No alert is left out of the unit tests."""
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert len(alerts) >= 16
    told = TESTS.read_text()
    for alert in alerts:
        assert f"name: {alert} fires" in told
        assert f"name: {alert} stays quiet" in told


@pytest.fixture(scope="module")
def scraped(postgresql_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The metrics in the midst of a migration, with a verdict to come and PostgreSQL looked at."""
    table = f"t_{uuid.uuid4().hex[:12]}"
    settings = settings_for(
        tmp_path_factory.mktemp("scraped"),
        postgresql={"dsn": postgresql_dsn, "table": table},
        serve={"refresh_ms": 100},
    )
    with running(settings) as proxy:
        migrate_to_shadow(proxy)
        random = np.random.default_rng(3)
        for _ in range(100):
            vector = random.normal(size=DIMENSION).tolist()
            assert proxy.client.post("/v1/search", json={"vector": vector}).status_code == 200
        assert proxy.client.get("/nowhere").status_code == 404

        def text() -> str:
            return proxy.client.get("/metrics").text

        # At the start of a line is a value; in "# HELP" and "# TYPE" the name is there without one.
        needed = ("\nshadow_postgresql_table_bytes ", "\nshadow_recall_mean ")
        eventually(lambda: all(name in text() for name in needed))
        yield text()
    drop_tables(postgresql_dsn, table)


def test_the_metrics_are_in_order(scraped: str) -> None:
    """promtool finds nothing against names, units, types and help texts."""
    done = subprocess.run(
        [promtool(), "check", "metrics"], input=scraped, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("path", [RULES, DASHBOARD], ids=lambda path: path.name)
def test_alerts_and_dashboard_use_metrics_that_exist(path: Path, scraped: str) -> None:
    """A metric or a label that was renamed would leave an alert silent and a panel empty for ever."""
    families = list(text_string_to_metric_families(scraped))
    there = {family.name + end for family in families for end in SUFFIXES[family.type]}
    expressions = expressions_of(path)
    assert metrics_in(expressions)
    assert not metrics_in(expressions) - there
    labels: dict[str, dict[str, set[str]]] = {}
    for sample in (sample for family in families for sample in family.samples):
        of_name = labels.setdefault(sample.name, {})
        for label, value in sample.labels.items():
            of_name.setdefault(label, set()).add(value)
    for name, selector in re.findall(r"(shadow_\w+)\{([^}]*)\}", expressions):
        for label, how, value in re.findall(r'(\w+)(=~?)"([^"]*)"', selector):
            if label == "job" or label == "status":
                continue
            for one in value.split("|") if how == "=~" else [value]:
                assert one in labels[name][label], (name, label, one)


def expressions_of(path: Path) -> str:
    text = path.read_text()
    if path.suffix != ".json":
        return " ".join(re.findall(r"expr: (.*)", text))
    found = json.loads(text)
    assert found["uid"]
    assert all(panel.get("targets") or panel["type"] == "row" for panel in found["panels"])
    targets = [target for panel in found["panels"] for target in panel.get("targets", [])]
    return " ".join(target["expr"] for target in targets)


def test_metrics_keep_the_conventions(proxy: Running) -> None:
    """Every metric has a help text; counters end in _total, times in _seconds, sizes in _bytes."""
    text = proxy.client.get("/metrics").text
    families = list(text_string_to_metric_families(text))
    assert len(families) > 25
    for family in families:
        assert family.documentation
        assert family.name.startswith(("shadow_", "process_"))
        assert not re.search(r"_(ms|mb|kb|percent)(_|$)", family.name)
    assert "shadow_mirror_compared_total" in text
    for name in ("recall_mean", "verdict", "lag_seconds", "lag_entries", "phase", "era",
                 "journal_size_bytes", "snapshot_age_seconds", "mirror_dropped_total",
                 "mirrored_latency_seconds", "search_duration_seconds"):  # fmt: skip
        assert f"# TYPE shadow_{name} " in text

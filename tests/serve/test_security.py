"""What a stranger may not do, and what never leaves the proxy."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import structlog
from psycopg import conninfo

from shadow.config import Settings
from shadow.config_sources import load_settings
from shadow.serve.problems import Problem
from shadow.serve.security import Callers, Tokens
from shadow.serve.server import listening, serve
from tests.serve.running import (
    CONTROL_TOKEN,
    DIMENSION,
    WRITE_TOKEN,
    Running,
    eventually,
    migrate_to_shadow,
    running,
    settings_for,
)
from vectorstore.errors import ConfigurationError

RECORD = {"records": [{"id": "a", "vector": [1.0] * DIMENSION}]}
SECRET = "planted-secret-9c1f"
QUERY_TEXT = "planted query about maize stalk borers"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_it_listens_on_loopback_unless_told(tmp_path: Path) -> None:
    """The default address is this machine's alone."""
    assert Settings.model_validate({}).serve.host == "127.0.0.1"


@pytest.mark.parametrize("path", ["records", "records/delete"])
def test_writes_need_their_token(guarded: Running, path: str) -> None:
    """Without the write token, with another or with the control token there is no write."""
    body = RECORD if path == "records" else {"ids": ["a"]}
    for headers in ({}, bearer("wrong"), bearer(CONTROL_TOKEN), {"authorization": "Basic eDp5"}):
        refused = guarded.client.post(f"/v1/{path}", json=body, headers=headers)
        assert refused.status_code == 401, refused.text
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["type"] == "/problems/unauthorized"
    allowed = guarded.client.post(f"/v1/{path}", json=body, headers=bearer(WRITE_TOKEN))
    assert allowed.status_code == 200


def test_the_write_token_does_not_decide(guarded: Running) -> None:
    """Control has a token of its own."""
    body = {"route_version": 1, "why": "x", "rate": 0.5}
    for token in ("x", "wrong", WRITE_TOKEN):
        refused = guarded.client.post("/v1/control/mirror-rate", json=body, headers=bearer(token))
        assert refused.status_code == 401
    assert guarded.decide("mirror-rate", rate=0.5).status_code == 200
    assert guarded.migration.routes.current().mirror_rate == 0.5


@pytest.mark.parametrize(
    "action", ["cutover", "rollback", "ramp", "rehearse", "finalize", "mirror-rate"]
)
def test_control_is_refused_when_no_token_is_set(proxy: Running, action: str) -> None:
    """Nobody decides over HTTP unless the owner of the proxy said who may."""
    body = {"route_version": 1, "why": "x", "share": 0.5, "rate": 0.5}
    for headers in ({}, bearer("x"), bearer("None"), bearer(CONTROL_TOKEN)):
        refused = proxy.client.post(f"/v1/control/{action}", json=body, headers=headers)
        assert refused.status_code == 403, refused.text
        assert "control_token" in refused.json()["detail"]


def test_writes_are_refused_beyond_this_machine_without_a_token() -> None:
    """Open to the network and no token: writes are refused; on loopback they are taken."""
    beyond = Settings.model_validate({"serve": {"host": "0.0.0.0"}}).serve
    with pytest.raises(Exception, match="no write token"):
        Tokens.of(beyond).check_write(None)
    Tokens.of(Settings.model_validate({}).serve).check_write(None)


def test_tokens_must_be_readable_and_long(tmp_path: Path) -> None:
    """A token that is short, doubled or in a file that is not there keeps the proxy from starting.
    What is wrong with a file names the file."""
    for name, held in (
        ("empty", b""),
        ("blank", b" \n\t\n"),
        ("little", b"short"),
        ("odd", b"\xff"),
    ):
        (tmp_path / name).write_bytes(held)
    for section, words in (
        ({"write_token": "short"}, "serve.write_token is shorter than 16"),
        ({"write_token_file": tmp_path / "little"}, "little is shorter than 16"),
        ({"control_token_file": tmp_path / "none"}, "none cannot be read: No such file"),
        ({"control_token_file": tmp_path}, "cannot be read: Is a directory"),
        ({"write_token_file": tmp_path / "odd"}, "odd is not text"),
        ({"write_token_file": tmp_path / "empty"}, "write_token_file: .*empty is empty"),
        ({"control_token_file": tmp_path / "blank"}, "control_token_file: .*blank is empty"),
        ({"write_token": WRITE_TOKEN, "write_token_file": tmp_path / "x"}, "both set"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            Tokens.of(Settings.model_validate({"serve": section}).serve)


def test_one_token_for_both_is_refused_and_not_shown(tmp_path: Path) -> None:
    """Whoever may write could flip the primary with it; it makes no difference where the two stand."""
    path = tmp_path / "token"
    path.write_text(f"{WRITE_TOKEN}\n")
    for section in (
        {"write_token": WRITE_TOKEN, "control_token": WRITE_TOKEN},
        {"write_token": WRITE_TOKEN, "control_token_file": path},
        {"write_token_file": path, "control_token_file": path},
    ):
        settings = Settings.model_validate({"serve": section})
        with pytest.raises(ConfigurationError, match="are the same") as refused:
            serve(settings, on_ready=pytest.fail)
        assert WRITE_TOKEN not in str(refused.value)


def test_tokens_come_from_the_environment_too() -> None:
    """As every setting does; the file is named in the same way."""
    environment = {
        "SHADOW_SERVE__WRITE_TOKEN": WRITE_TOKEN,
        "SHADOW_SERVE__CONTROL_TOKEN": CONTROL_TOKEN,
    }
    tokens = Tokens.of(load_settings(environment=environment).serve)
    tokens.check_write(WRITE_TOKEN)
    tokens.check_control(CONTROL_TOKEN)
    with pytest.raises(Problem, match="token"):
        tokens.check_control(WRITE_TOKEN)


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the function made for it, over texts of equal length, however long the given token is."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("shadow.serve.security.hmac.compare_digest", compare)
    tokens = Tokens.of(Settings.model_validate({"serve": {"control_token": CONTROL_TOKEN}}).serve)
    for given in ("x", CONTROL_TOKEN[:-1], CONTROL_TOKEN + "x", "y" * 10_000):
        with pytest.raises(Problem):
            tokens.check_control(given)
    tokens.check_control(CONTROL_TOKEN)
    assert len(compared) == 5
    assert {len(one) == len(other) == 32 for one, other in compared} == {True}


def test_a_decision_must_name_the_route_it_was_taken_on(guarded: Running) -> None:
    """Without the version of the route there is no decision, whatever else is right."""
    for action, more in (("cutover", {}), ("rollback", {}), ("ramp", {"share": 0.5}),
                         ("rehearse", {}), ("finalize", {}), ("mirror-rate", {"rate": 0.5})):  # fmt: skip
        refused = guarded.client.post(
            f"/v1/control/{action}", json={"why": "x", **more}, headers=bearer(CONTROL_TOKEN)
        )
        assert refused.status_code == 422
        assert "route_version" in refused.json()["detail"]


def test_tokens_are_not_in_the_settings_text() -> None:
    """Printing the settings shows no token."""
    settings = Settings.model_validate({"serve": {"write_token": SECRET, "control_token": SECRET}})
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings.model_dump())


def test_pages_of_other_origins_are_refused(proxy: Running) -> None:
    """A request that another site's page sends is refused, whatever it asks; our own page may ask."""
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        refused = proxy.client.get("/v1/status", headers={"origin": origin})
        assert refused.status_code == 403
    own = proxy.client.get("/v1/status", headers={"origin": proxy.url})
    assert own.status_code == 200


def test_other_host_names_are_refused(proxy: Running) -> None:
    """A name that somebody lets point at this address is not answered (DNS rebinding)."""
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example"):
        refused = proxy.client.get("/", headers={"host": host})
        assert refused.status_code == 421
        assert "vector" not in refused.text
    port = proxy.url.rpartition(":")[2]
    assert proxy.client.get("/healthz", headers={"host": f"localhost:{port}"}).status_code == 200


def test_named_hosts_are_answered() -> None:
    """Behind another proxy the public name is allowed by name; open to the network, any is."""
    named = Callers.of(
        Settings.model_validate({"serve": {"hosts_allowed": ["search.example"]}}).serve
    )
    named.check("search.example", "https://search.example")
    with pytest.raises(Exception, match="host name"):
        named.check("other.example", None)
    Callers.of(Settings.model_validate({"serve": {"host": "0.0.0.0"}}).serve).check("any", None)


def test_every_response_has_the_security_headers(proxy: Running) -> None:
    """Pages, JSON, refusals and what is not there: strict policy, no sniffing, no framing."""
    for path in ("/", "/v1/status", "/nowhere", "/metrics", "/static/page.js", "/report"):
        response = proxy.client.get(path)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "server" not in response.headers


def test_a_proxy_that_is_open_to_the_network_says_so(tmp_path: Path) -> None:
    """Before it listens; a token that is too short keeps it from opening anything at all."""
    settings = settings_for(tmp_path / "state", serve={"host": "0.0.0.0", "write_token": "short"})
    with pytest.raises(ConfigurationError, match="shorter than 16"):
        serve(settings, on_ready=lambda _: None)
    assert not (tmp_path / "state").exists()
    taken = settings_for(tmp_path / "state", serve={"host": "0.0.0.0", "port": 0})
    with listening("0.0.0.0", 0) as busy:
        section = taken.serve.model_copy(update={"port": busy.getsockname()[1]})
        with (
            structlog.testing.capture_logs() as logs,
            pytest.raises(ConfigurationError, match="cannot listen"),
        ):
            serve(taken.model_copy(update={"serve": section}), on_ready=lambda _: None)
    assert [entry["event"] for entry in logs] == ["reads_are_open"]


def test_the_page_has_no_inline_code_and_no_foreign_asset(proxy: Running) -> None:
    """Nothing on the page needs an exception from the policy, and all addresses are our own."""
    page = proxy.client.get("/").text
    assert "<style" not in page
    assert " style=" not in page
    assert " onclick" not in page
    assert page.count("<script") == 1
    # Nothing moves by itself, so there is nothing to still for who prefers that.
    style = proxy.client.get("/static/page.css").text
    assert "animation" not in style
    assert "transition" not in style
    for text in (page, proxy.client.get("/static/page.js").text):
        assert "https://" not in text
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")


def test_a_conflict_is_refused(guarded: Running) -> None:
    """A decision taken on a version of the route that has changed since is a 409, and nothing moves."""
    before = guarded.migration.routes.current()
    for action, more in (
        ("cutover", {"wait": True}),
        ("rollback", {}),
        ("ramp", {"share": 0.5}),
        ("rehearse", {}),
        ("finalize", {}),
        ("mirror-rate", {"rate": 0.1}),
    ):
        refused = guarded.decide(action, route_version=before.version + 7, **more)
        assert refused.status_code == 409
        assert refused.json()["type"] == "/problems/route-conflict"
    assert guarded.migration.routes.current() == before


def test_decisions_are_in_the_audit_log(guarded: Running) -> None:
    """Who, from where and why are kept."""
    guarded.decide("mirror-rate", rate=0.25, operator="Chisomo", why="less load")
    entry = guarded.migration.routes.audit(limit=1)[0]
    assert entry.who == "Chisomo (over HTTP from 127.0.0.1)"
    assert entry.why == "less load"
    assert "25%" in entry.what


def test_nothing_planted_comes_out_of_a_migration(
    postgresql_dsn: str, fresh_table: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same while queries are mirrored and compared, PostgreSQL is asked and decisions are taken:
    no vector, filter, label, record text, token or password in any log, metric, status or page."""
    password = conninfo.conninfo_to_dict(postgresql_dsn)["password"]
    assert isinstance(password, str)
    settings = settings_for(
        tmp_path / "state",
        postgresql={"dsn": postgresql_dsn, "table": fresh_table},
        serve={"control_token": CONTROL_TOKEN},
    )
    vector = np.random.default_rng(5).normal(size=DIMENSION).astype("<f4")
    letters = base64.b64encode(vector.tobytes()).decode()
    planted = [password, "planted-label", "planted-filter", "planted-text", letters, CONTROL_TOKEN,
               f"{vector[0]}"[:9]]  # fmt: skip
    with structlog.testing.capture_logs() as logs, running(settings) as proxy:
        migrate_to_shadow(proxy)
        record = {"id": "a", "vector_base64": letters, "text": "planted-text",
                  "metadata": {"planted-filter": "planted-filter"}}  # fmt: skip
        assert proxy.client.post("/v1/records", json={"records": [record]}).status_code == 200
        question = {"vector_base64": letters, "filter": {"planted-filter": "planted-filter"},
                    "label": "planted-label"}  # fmt: skip
        for _ in range(20):
            assert proxy.client.post("/v1/search", json=question).status_code == 200
        eventually(lambda: any(entry["event"] == "comparison" for entry in logs))
        proxy.decide("cutover", why="too early")
        proxy.decide("mirror-rate", rate=0.5)
        told = [proxy.client.get(path).text for path in
                ("/", "/report", "/metrics", "/v1/status", "/v1/report", "/openapi.json")]  # fmt: skip
    for text in (*told, json.dumps(logs, default=str), "".join(capfd.readouterr())):
        for secret in planted:
            assert secret not in text, secret


def test_nothing_planted_comes_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Tokens, the database's password, query texts, vectors and record texts are in no log, metric,
    status or page; a refusal tells the caller where its request is wrong, not what stood there."""
    token = f"{SECRET}-token-of-this-proxy"
    settings = settings_for(
        tmp_path / "state",
        postgresql={"dsn": f"postgresql://u:{SECRET}@127.0.0.1:1/x"},
        serve={"write_token": token, "control_token": f"{token}-2"},
    )
    vector = np.random.default_rng(5).normal(size=DIMENSION).tolist()
    planted = [SECRET, QUERY_TEXT, "planted-record-text", "planted-filter", f"{vector[0]}"[:12]]
    with structlog.testing.capture_logs() as logs, running(settings) as proxy:
        ask = proxy.client
        record = {"id": "a", "vector": vector, "text": "planted-record-text"}
        assert (
            ask.post("/v1/records", json={"records": [record]}, headers=bearer(token)).status_code
            == 200
        )
        good = {"vector": vector, "filter": {"planted-filter": "planted-filter"}}
        assert ask.post("/v1/search", json=good).status_code == 200
        told = [
            ask.post("/v1/search", json={"text": QUERY_TEXT}),
            ask.post("/v1/search", json={"vector": QUERY_TEXT}),
            ask.post("/v1/search", json={**good, "k": SECRET}),
            ask.post("/v1/search", content=QUERY_TEXT.encode()),
            ask.get("/v1/records", params={"limit": SECRET}),
            ask.get(f"/{SECRET}", params={"q": QUERY_TEXT}),
            ask.post("/v1/control/cutover", json={"why": SECRET}, headers=bearer(SECRET)),
            *(ask.get(path) for path in ("/", "/report", "/metrics", "/v1/status", "/v1/report")),
        ]
        for response in told:
            for secret in planted:
                assert secret not in response.text, (response.request.url.path, secret)
    assert logs, "nothing was logged, so the test would prove nothing"
    written = json.dumps(logs, default=str) + "".join(capfd.readouterr())
    for secret in planted:
        assert secret not in written

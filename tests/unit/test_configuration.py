"""What a wrong value in the router's configuration is told: the key, and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadow.config_sources import load_settings
from vectorstore.errors import ConfigurationError


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("gate = 3", r"'gate' .*a section and no value: write \[gate\] on a line of its own"),
        ("[[gate]]\nrecall_min = 0.9", r"'gate' .*write \[gate\]"),
        ("state_directory = 3", "'state_directory' .*must be a text in quotes"),
        ("[postgresql]\ndsn = 3", r"'postgresql\.dsn' .*must be a text in quotes"),
        ('[faiss]\nquarantine = "a"', r'a list of texts, as in quarantine = \["doc-7"'),
        ('[serve]\nhosts_allowed = "a"', "SHADOW_SERVE__HOSTS_ALLOWED=search.example.org"),
        ('[postgresql]\nmaintenance_work_mem = "1 GB"', 'maintenance_work_mem = "512MB"'),
        ("[faiss]\ndimension = true", r"'faiss\.dimension' .*true switches nothing here"),
        ("[mirror]\ncpu_share_max = 0", r"'mirror\.cpu_share_max' .*greater than 0"),
        ("[gate]\nduration_s_min = inf", r"'gate\.duration_s_min' .*less than"),
        ("[gate]\nverify_every_s = nan", r"'gate\.verify_every_s' "),
        # What the gate itself refuses would fail every look at it, a rollback included.
        ("[gate]\nalpha_ready = 0.6", r"'gate\.alpha_ready' .*equal to 0\.5"),
        ("[gate]\nalpha_automatic = 0.6", r"'gate\.alpha_automatic' .*equal to 0\.5"),
        ("[gate]\ndrops_share_max = 1", r"'gate\.drops_share_max' .*less than 1"),
        ("[gate]\nverify_age_s_max = 0", r"'gate\.verify_age_s_max' .*greater than 0"),
        ("[router]\ntimeout_ms = true", r"'router\.timeout_ms' .*true switches nothing here"),
        ('[gate]\nstrata = ["sometimes"]', r"'gate\.strata' .*: the stratum 'sometimes'"),
        ('state_directory = ""', "'state_directory' .*is empty: give a folder"),
        ('[faiss]\npath = "a\\u0000b"', r"'faiss\.path' .*a NUL character"),
        ("[gate\n", "not valid TOML"),
        ("a = " + "[" * 100_000, "not valid TOML"),
        ("[gates]\nrecall_min = 0.9", "unknown setting 'gates'"),
    ],
)
def test_a_wrong_value_is_told_the_right_form(tmp_path: Path, written: str, says: str) -> None:
    """The file is named, and no type of Python's."""
    path = tmp_path / "shadow.toml"
    path.write_text(f"{written}\n")
    with pytest.raises(ConfigurationError, match=says) as refused:
        load_settings(path, {})
    assert str(path) in str(refused.value)
    for word in ("tuple", "pathlib", "instance of", "dictionary"):
        assert word not in str(refused.value)


def test_a_switch_is_still_one(tmp_path: Path) -> None:
    """Where true and false are what is asked for, in the file and as a text."""
    path = tmp_path / "shadow.toml"
    path.write_text("[mirror]\nown_process = false\n")
    assert load_settings(path, {}).mirror.own_process is False
    assert load_settings(path, {"SHADOW_MIRROR__OWN_PROCESS": "true"}).mirror.own_process is True


def test_a_file_from_an_editor_that_begins_files_with_a_mark_is_read(tmp_path: Path) -> None:
    """The byte order mark that Notepad writes is no part of the first key."""
    path = tmp_path / "shadow.toml"
    path.write_bytes(b'\xef\xbb\xbflog_level = "error"\r\n')
    assert load_settings(path, {}).log_level == "error"


@pytest.mark.parametrize(
    ("written", "listed"),
    [
        ("doc-7,doc-8", ("doc-7", "doc-8")),
        ('["doc, seven", "doc-8"]', ("doc, seven", "doc-8")),
        ("[7],doc-8", ("[7]", "doc-8")),
        ("", ()),
    ],
)
def test_a_list_in_the_environment(written: str, listed: tuple[str, ...]) -> None:
    """With commas, or as in JSON where a text has one; empty, it is none."""
    found = load_settings(environment={"SHADOW_FAISS__QUARANTINE": written})
    assert found.faiss.quarantine == listed

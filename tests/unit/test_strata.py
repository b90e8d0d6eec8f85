"""Strata: what belongs to them, and what cannot be declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadow.config import GateSettings
from shadow.config_sources import load_settings
from shadow.core.strata import STRATA_MAX, declared, strata_of
from vectorstore.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "k", "filtered", "label", "belongs"),
    [
        ("filtered", 10, True, None, True),
        ("filtered", 10, False, None, False),
        ("unfiltered", 10, False, None, True),
        ("k<=10", 10, False, None, True),
        ("k<10", 10, False, None, False),
        ("k>10", 11, False, None, True),
        ("k >= 50", 49, False, None, False),
        ("k=5", 5, False, None, True),
        ("label:crops", 10, False, "crops", True),
        ("label:crops", 10, False, "crop", False),
        ("label:crops", 10, False, None, False),
    ],
)
def test_a_query_belongs_by_filter_k_and_label(
    name: str, k: int, filtered: bool, label: str | None, belongs: bool
) -> None:
    """The name says which queries belong; all traffic is always counted as well."""
    found = strata_of(declared([name]), k=k, filtered=filtered, label=label)
    assert found == (("all", name) if belongs else ("all",))


@pytest.mark.parametrize("name", ["", "all", "k", "k<=", "k<=x", "label:", "Filtered", "k!=3"])
def test_what_is_not_understood_is_refused_by_name(name: str) -> None:
    """A misspelt stratum would be one without traffic for ever, so it is an error."""
    with pytest.raises(ConfigurationError, match="write filtered, unfiltered, k<=10"):
        declared([name])


def test_too_many_strata_and_repeated_ones_are_refused() -> None:
    """Each needs evidence of its own."""
    with pytest.raises(ConfigurationError, match=f"at most {STRATA_MAX}"):
        declared([f"label:{number}" for number in range(STRATA_MAX + 1)])
    with pytest.raises(ConfigurationError, match="twice"):
        declared(["filtered", "filtered"])


def test_strata_come_from_the_environment_and_a_wrong_one_names_the_setting() -> None:
    """As a list with commas, checked when the settings are read."""
    found = load_settings(environment={"SHADOW_GATE__STRATA": "filtered,k<=10"})
    assert found.gate.strata == ("filtered", "k<=10")
    with pytest.raises(ConfigurationError, match=r"gate\.strata.*'sometimes'"):
        load_settings(environment={"SHADOW_GATE__STRATA": "sometimes"})
    assert GateSettings().strata == ()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "written",
    ['strata = "filtered"', "strata = 3", "strata = {a = 1}", "strata = [3]", "strata = [[]]",
     '[[gate.strata]]\nname = "filtered"', "strata = true"],
)  # fmt: skip
def test_strata_of_another_form_are_told_the_right_one(tmp_path: Path, written: str) -> None:
    """In TOML and in the environment, and without the name of a type of Python's."""
    path = tmp_path / "shadow.toml"
    path.write_text(f"[gate]\n{written}\n")
    with pytest.raises(ConfigurationError, match=r"'gate\.strata'") as refused:
        load_settings(path, {})
    said = str(refused.value)
    assert 'a list of texts, as in strata = ["filtered", "k<=10"]' in said
    assert "SHADOW_GATE__STRATA=filtered,k<=10" in said
    assert "tuple" not in said
    path.write_text('[gate]\nstrata = ["filtered", "k<=10"]\n')
    assert load_settings(path, {}).gate.strata == ("filtered", "k<=10")

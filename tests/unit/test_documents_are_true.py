"""What the documents say is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from farming_guide import settings_reference as bot_reference
from farming_guide.commands import COMMANDS
from farming_guide.settings import BotSettings
from farming_guide.settings import load_settings as load_bot_settings
from shadow.cli import app
from shadow.config import Settings
from shadow.config_sources import load_settings
from shadow.settings_reference import as_markdown, as_toml
from tests.commands_page import page
from vectorstore.postgres.schema import PGVECTOR_MIN

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if ".venv" not in path.parts
)


def test_the_commented_configuration_lists_every_setting() -> None:
    """config/shadow.toml is what `shadow settings` prints; `make docs` writes it anew."""
    assert (ROOT / "config/shadow.toml").read_text() == as_toml()
    assert (ROOT / "docs/configuration.md").read_text() == as_markdown()


def test_the_configuration_with_every_line_uncommented_gives_the_defaults(tmp_path: Path) -> None:
    """Each value in the file is one that its setting takes."""
    lines = [re.sub(r"^# (\w+ = )", r"\1", line) for line in as_toml().splitlines()]
    path = tmp_path / "all.toml"
    path.write_text("\n".join(lines))
    assert load_settings(path, environment={}) == Settings()


def test_the_bots_page_and_configuration_list_every_setting_and_command() -> None:
    """docs/bot.md has the table of `farming-guide settings`; config/farming_guide.toml is made by it."""
    text = (ROOT / "docs/bot.md").read_text()
    assert bot_reference.as_markdown() in text
    assert all(f"`/{command.name}" in text for command in COMMANDS)
    assert (ROOT / "config/farming_guide.toml").read_text() == bot_reference.as_toml()
    for name in BotSettings.model_fields:
        assert name in bot_reference.as_toml()


def test_the_bots_configuration_with_every_line_uncommented_gives_the_defaults(
    tmp_path: Path,
) -> None:
    """Each value in the file is one that its setting takes."""
    shipped = f'"{Path(bot_reference.__file__).parent}/'
    text = re.sub(r"^# (\w+ = |\[)", r"\1", bot_reference.as_toml(), flags=re.M)
    lines = [line for line in text.splitlines() if not line.endswith("(unset)")]
    path = tmp_path / "all.toml"
    path.write_text("\n".join(lines).replace('"farming_guide/', shipped))
    assert load_bot_settings({"FARMING_GUIDE_CONFIG": str(path)}) == BotSettings()  # type: ignore[call-arg]


def test_the_commands_page_is_the_commands_help() -> None:
    """docs/commands.md is what the commands say of themselves; `make docs` writes it anew."""
    assert (ROOT / "docs/commands.md").read_text() == page()


def test_every_command_teaches() -> None:
    """Each has a text that is more than its name."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {
        "init",
        "status",
        "backfill",
        "verify",
        "report",
        "ramp",
        "cutover",
        "rollback",
        "finalize",
        "demo",
    } <= set(commands)
    for name, command in commands.items():
        assert len(command.help or "") > 40, name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    """Relative links name files that exist, and their anchors headings that are there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        assert not anchor or anchor in anchors_of(file), target


def anchors_of(path: Path) -> set[str]:
    """The anchors that a page's headings get: small letters, hyphens for spaces, no punctuation."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to every page of the folder."""
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs/README.md").read_text()))
    assert linked == {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_name_commands_and_settings_that_exist(path: Path) -> None:
    """What stands in code type as `shadow X` is a command, and as `section.name` a setting."""
    text = path.read_text()
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"`shadow ([a-z][a-z-]*)", text)) <= commands
    sections = {
        name: set(field.annotation.model_fields)
        for name, field in Settings.model_fields.items()
        if hasattr(field.annotation, "model_fields")
    }
    for section, name in re.findall(rf"`({'|'.join(sections)})\.([a-z0-9_]+)", text):
        # Files that are named like a section.
        if f"{section}.{name}" not in ("journal.db", "postgresql.copy"):
            assert name in sections[section], f"{section}.{name}"


def test_every_alert_is_explained() -> None:
    """Who is woken by an alert finds it by its name in docs/what-if.md."""
    alerts = re.findall(r"- alert: (\w+)", (ROOT / "config/prometheus-alerts.yml").read_text())
    assert alerts
    told = (ROOT / "docs/what-if.md").read_text()
    assert [name for name in alerts if f"`{name}`" not in told] == []


def test_pages_ask_for_the_pgvector_that_the_store_asks_for() -> None:
    """One version in every document: the one below which a server is refused."""
    least = ".".join(map(str, PGVECTOR_MIN))
    for path in PAGES:
        for named in re.findall(r"pgvector (\d+\.\d+) or newer", path.read_text()):
            assert named == least, path.name
    assert f"pgvector {least} or newer" in (ROOT / "docs/managed-postgresql.md").read_text()
    assert f"pgvector {least} or newer" in (ROOT / "README.md").read_text()


def test_the_readme_names_commands_that_exist() -> None:
    """Each `shadow X` and `make X` in the README's blocks is a command or a target."""
    text = (ROOT / "README.md").read_text()
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.S))
    named = set(re.findall(r"^shadow ([a-z-]+)", blocks, re.M))
    assert named
    assert named <= commands
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"make ([a-z-]+)", blocks)) <= targets


def test_the_tests_that_a_page_names_exist() -> None:
    """What shows a claim can be run."""
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for path in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)`", path.read_text()):
            assert name in there, f"{path.name} names {name}"
        for named in re.findall(r"`(tests/[\w/]+\.py)`", path.read_text()):
            assert (ROOT / named).exists(), f"{path.name} names {named}"

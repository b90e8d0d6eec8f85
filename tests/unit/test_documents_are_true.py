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
from shadow.config import Settings, load_settings
from shadow.settings_reference import as_markdown, as_toml
from tests.commands_page import page

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
    """Relative links name files that exist."""
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (path.parent / target).exists(), target


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

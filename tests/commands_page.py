"""Prints docs/commands.md from the commands' own help: `python -m tests.commands_page`."""

from __future__ import annotations

import sys

import typer.main
from typer.testing import CliRunner

from shadow.cli import app

HEAD = """\
# Commands

Made from the commands' own help by `make docs`; a test keeps it true. Every command takes `--config`, a
TOML file with the settings ([configuration.md](configuration.md)); progress and errors go to standard
error, results to standard output, and `--json` prints what a script would read.

| exit code | meaning |
|---|---|
| 0 | done; for `report` and `cutover`: pass, in force |
| 1 | failed; the same call may succeed later |
| 2 | bad input, setting, credential or permission; nothing was changed |
| 3 | the evidence says hold; for `verify`: rows differ; for `doctor`: something was found |
| 4 | not enough evidence yet |
| 130 | interrupted |
"""
WIDTH = "98"


def page() -> str:
    """The page."""
    runner = CliRunner()
    parts = [HEAD]
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        result = runner.invoke(
            app,
            [name, "--help"],
            prog_name="shadow",
            env={"COLUMNS": WIDTH, "TERMINAL_WIDTH": WIDTH},
        )
        lines = [line.rstrip() for line in result.output.strip().splitlines()]
        parts += [f"\n## shadow {name}\n", "```", *lines, "```"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())

"""What commands print when they are broken off, watched through a pipe, or refused at length."""

from __future__ import annotations

import os
import signal
import threading
from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

from shadow.cli import app
from shadow.commands.running import BAD_INPUT, stop
from shadow.core.phases import Wanted
from tests.plugins.migrations import SmallMigration, until


def test_ctrl_c_in_a_waiting_cutover_says_that_the_wish_stays(
    small_migration: SmallMigration,
) -> None:
    """And how to take it back."""
    with small_migration.opened() as migration:
        cutover = small_migration.command("cutover", "--wait", "60")
        until("the wish", lambda: migration.routes.request().wanted is Wanted.POSTGRESQL)
        os.killpg(cutover.pid, signal.SIGINT)
        _, said = cutover.communicate(timeout=60)
        # Python itself ends by the signal if that struck in an import, though it was met later on. To a
        # shell both are 130.
        assert cutover.returncode in (130, -signal.SIGINT), said
        assert "the wish stays: a router flips when the gate passes" in said
        assert "`shadow rollback` takes it back" in said
        assert migration.routes.request().wanted is Wanted.POSTGRESQL


def test_a_watch_through_a_pipe_shows_each_rendering_until_nobody_reads(
    small_migration: SmallMigration,
) -> None:
    """As in `shadow status --watch | head`: the first lines come at once, and the end is quiet."""
    watch = small_migration.command("status", "--watch")
    assert watch.stdout is not None
    assert watch.stderr is not None
    deadline = threading.Timer(60.0, watch.kill)
    deadline.start()
    seen = 0
    while seen < 2:
        line = watch.stdout.readline()
        assert line, "nothing within 60 s"
        seen += line.startswith("phase ")
    deadline.cancel()
    watch.stdout.close()
    assert watch.wait(timeout=60) == 1
    assert watch.stderr.read() == ""
    watch.stderr.close()


def test_a_refusal_that_lists_keeps_its_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """What is one thing a line is not run together."""
    with pytest.raises(typer.Exit) as refused:
        stop("two records:\n\n  a: too  long\n  b: empty\n", code=BAD_INPUT)
    assert refused.value.exit_code == BAD_INPUT
    assert capfd.readouterr().err == "shadow: two records:\n  a: too long\n  b: empty\n"


def test_the_version_is_told() -> None:
    """That of the package."""
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"shadow {version('shadow-cutover')}\n")


@pytest.mark.parametrize("words", ["status --json --watch", "settings --toml --markdown"])
def test_two_forms_of_output_at_once_are_refused(words: str) -> None:
    """Rather than one of them being passed over in silence."""
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == BAD_INPUT
    assert "give one of them, and not both" in result.output

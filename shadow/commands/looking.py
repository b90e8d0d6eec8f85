"""The commands that look: status and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shadow.actions import actions, may_flip
from shadow.commands.running import (
    HOLD,
    UNDECIDED,
    ConfigOption,
    JsonOption,
    migration,
    out,
    print_json,
)

__all__ = ["report", "settings", "status"]


def status(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    watching: Annotated[
        bool, typer.Option("--watch", help="Stay, and show it anew every second, until Ctrl-C.")
    ] = False,
) -> None:
    """Who answers, what is wanted and what it waits for, lag, evidence and the last verify."""
    from shadow.load_clock import LoadClock
    from shadow.status import status as look

    if as_json and watching:
        raise typer.BadParameter("give one of them, and not both", param_hint="--json, --watch")
    with migration(config) as opened:
        if watching:
            from shadow.commands.watching import watch

            clock = LoadClock()
            watch(opened, lambda: look(opened, clock=clock))
        found = look(opened)
    if as_json:
        print_json(found)
    else:
        _print_status(found)


def report(
    config: ConfigOption = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the three files; default: report/ in the state directory.",
        ),
    ] = None,
    subject: Annotated[
        str, typer.Option(help="What is migrated, as its owners call it.")
    ] = "vector search",
    as_json: JsonOption = False,
) -> None:
    """Write the parity report (JSON, Markdown, HTML) and print the verdict.

    Exit code 0: pass. 3: the evidence says hold. 4: there is not enough evidence yet.
    """
    from shadow.report import to_json, write_report
    from shadow.report.collect import collect
    from shadow.report.words import headline

    with migration(config) as opened:
        opened.postgresql.look()
        opened.lag.refresh()
        found = collect(opened, subject=subject)
        folder = directory or opened.settings.state_directory / "report"
        paths = write_report(found, folder)
    if as_json:
        typer.echo(to_json(found))
    else:
        out.print(headline(found), markup=False)
        for sentence in (*found.reasons, *found.needs):
            out.print(f"  - {sentence}", markup=False)
        out.print(f"report: {paths.html}", markup=False)
    code = {"pass": 0, "hold": HOLD, "undecided": UNDECIDED}[found.verdict]
    if code:
        raise typer.Exit(code)


def _print_status(found: dict[str, Any]) -> None:
    from shadow.load_clock import in_words

    postgresql, evidence, verify = found["stores"]["postgresql"], found["evidence"], found["verify"]
    lines = [
        ("phase", f"{found['phase']}: {found['primary']} answers"),
        ("wanted", f"{found['wanted']}, by {found['wanted_by']}"),
        ("verdict", found["verdict"]),
        ("flip", may_flip(found, actions(found))),
    ]
    lines += [("  open", sentence) for sentence in found["open"]]
    lines += [("waiting for", sentence) for sentence in found["waiting_for"]]
    if found["latch"]:
        lines.append(("latched", f"{found['latch']}: `shadow rollback --clear-latch`"))
    lag = postgresql["lag_entries"]
    state = postgresql["state"] if lag is None else f"{postgresql['state']}, {lag:,} entries behind"
    lines.append(
        ("postgresql", f"{state}{': ' + postgresql['trouble'] if postgresql['trouble'] else ''}")
    )
    if found["backfill"] is not None:
        lines.append(("  backfill", in_words(found["backfill"])))
    journal = found["journal"]
    lines += [
        ("journal", f"head {journal['head']:,}, {journal['entries']:,} entries kept, "
                    f"{journal['bytes'] / 1e6:.1f} of {journal['bytes_max'] / 1e6:.0f} MB"),
        ("evidence", f"{evidence['compared']:,} of {evidence['sampled']:,} sampled queries compared, "
                     f"{evidence['distinct_queries']:,} distinct, {evidence['dropped']:,} dropped, "
                     f"era {found['era']}"),
        ("verify", "never" if verify is None else
         f"{verify['state']}, {verify['rows']:,} rows, {verify['age_s']:.0f} s ago"),
    ]  # fmt: skip
    if (server := found["server"]) is not None:
        lines += _server_lines(server)
    for name, value in lines:
        out.print(f"{name:<12} {value}", markup=False)


def _server_lines(server: dict[str, Any]) -> list[tuple[str, str]]:
    """PostgreSQL's own figures, our statements where it counts them, and what to change."""
    hits = server["cache_hit_share"]
    cache = "" if hits is None else f", {hits:.1%} cache hits"
    lines = [
        ("server", f"table {server['table_bytes'] / 1e6:.1f} MB, indexes "
                   f"{server['indexes_bytes'] / 1e6:.1f} MB, {server['dead_rows']:,} dead rows{cache}, "
                   f"{server['connections']} of {server['connections_max']} connections"),
    ]  # fmt: skip
    lines.append(
        ("  rows", f"{server['rows_inserted']:,} inserted, {server['rows_updated']:,} updated, "
                   f"{server['rows_deleted']:,} deleted since the server's statistics began")
    )  # fmt: skip
    lines += [
        ("  statement", f"{one['calls']:,} calls, mean {one['mean_ms']:.2f} ms: {one['text'][:70]}")
        for one in server["statements"] or ()
    ]
    if server["statements_absent"]:
        lines.append(("  statements", f"not counted: {server['statements_absent']}"))
    return lines + [("  hint", hint) for hint in server["hints"]]


def settings(
    as_toml: Annotated[
        bool, typer.Option("--toml", help="As a commented TOML file (default).")
    ] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="As the reference page.")] = False,
) -> None:
    """Print every setting with its default, unit, bounds and meaning."""
    from shadow.settings_reference import as_markdown as markdown
    from shadow.settings_reference import as_toml as toml

    if as_toml and as_markdown:
        raise typer.BadParameter("give one of them, and not both", param_hint="--toml, --markdown")
    typer.echo(markdown() if as_markdown else toml(), nl=False)

"""The command line: `shadow COMMAND`."""

from __future__ import annotations

from typing import Annotated

import typer

from shadow.commands import (
    backups,
    data,
    decisions,
    looking,
    measuring,
    reembedding,
    repairing,
    serving,
)
from shadow.commands.running import BAD_INPUT, errors_in_words, stop

__all__ = ["app", "main"]

app = typer.Typer(
    name="shadow",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Move a live vector search from FAISS to PostgreSQL + pgvector, with evidence and a way back.\n\n"
    "The usual order: backfill, verify, then watch status and report while traffic is mirrored, then "
    "cutover; rollback at any time; finalize in the end.",
)

for command in (
    data.init,
    looking.status,
    data.backfill,
    data.verify,
    looking.report,
    decisions.ramp,
    decisions.rehearse,
    decisions.cutover,
    decisions.rollback,
    decisions.finalize,
    backups.backup,
    backups.backups,
    backups.restore,
    repairing.repair,
    measuring.new_era,
    measuring.replay,
    measuring.tune,
    measuring.index,
    measuring.doctor,
    reembedding.reembed,
    reembedding.compare_models,
    serving.serve,
    looking.settings,
):
    app.command(name=command.__name__.replace("_", "-"))(errors_in_words()(command))


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"shadow {version('shadow-cutover')}")
        raise typer.Exit


@app.callback()
def _before(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="Which demo.")] = "farming-guide",
) -> None:
    """Carry a small knowledge base through a whole migration under live traffic."""
    from importlib.metadata import entry_points

    found = {entry.name: entry for entry in entry_points(group="shadow.demos")}
    if name not in found:
        stop(f"no demo {name!r}; there is: {', '.join(sorted(found)) or 'none'}", code=BAD_INPUT)
    with errors_in_words():
        code: int = found[name].load()()
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the command `shadow`."""
    app()


if __name__ == "__main__":
    main()

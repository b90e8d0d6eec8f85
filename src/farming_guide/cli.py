"""The command ``farming-guide``: the bot in a terminal, and what its maintainer needs."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from farming_guide.errors import DocumentRefused
from farming_guide.settings import load_settings
from vectorstore.errors import (
    ConfigurationError,
    IntakeRefused,
    InvalidInput,
    VectorStoreError,
)

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # A framework's pretty traceback prints local variables, and those hold keys.
    pretty_exceptions_enable=False,
    help=(
        "The Agricultural Advisor: answers farming questions from its guides, with sources.\n\n"
        "Settings come from the environment (VECTOR_DB_TYPE=faiss|postgresql|shadow, DATABASE_URL, "
        "OPENAI_API_KEY, TELEGRAM_BOT_TOKEN) or a TOML file named by FARMING_GUIDE_CONFIG. "
        "Exit codes: 0 done, 1 failed (it may work later), 2 a setting or an input is wrong."
    ),
)


@app.command()
def chat() -> None:
    """Talk with the bot: questions in your own words, /help for its commands, Ctrl-D to leave."""
    from farming_guide.wiring import open_bot

    bot = open_bot(load_settings())
    interactive = sys.stdin.isatty()
    try:
        typer.echo(bot.reply("/start"))
        while True:
            if interactive:
                typer.echo("> ", nl=False)
            line = sys.stdin.readline()
            if not line or line.strip() in {"/quit", "/exit"}:
                break
            if line.strip():
                typer.echo(bot.reply(line))
    finally:
        bot.advisor.store.close()


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question, in your own words.")],
    crop: Annotated[str, typer.Option(help="Only guides for this crop.")] = "",
    season: Annotated[str, typer.Option(help="Only guides for this season: rainy or dry.")] = "",
    document: Annotated[str, typer.Option(help="Only this guide, such as maize.pdf.")] = "",
    document_type: Annotated[str, typer.Option("--type", help="Only guides of this type.")] = "",
) -> None:
    """Answer one question, with its sources."""
    from farming_guide.catalogue import Wish
    from farming_guide.wiring import open_advisor

    advisor = open_advisor(load_settings())
    try:
        wish = Wish(document=document, crop=crop, season=season, document_type=document_type)
        typer.echo(advisor.cited(advisor.answer(question, wish=wish)))
    finally:
        advisor.store.close()


@app.command()
def ingest(
    paths: Annotated[
        list[Path], typer.Argument(help="PDF or Markdown files, or folders of them.", exists=True)
    ],
    all_again: Annotated[bool, typer.Option(help="Embed what is unchanged as well.")] = False,
) -> None:
    """Bring documents up to date in the store; only what changed is embedded and written."""
    from farming_guide.documents import SUFFIXES
    from farming_guide.ingestion import ingest as ingest_documents
    from farming_guide.wiring import open_backend, open_embedder

    settings = load_settings()
    files = [
        file
        for path in paths
        for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        if not path.is_dir() or file.suffix.lower() in SUFFIXES
    ]
    embedder = open_embedder(settings)
    backend = open_backend(settings, embedder.dimension, model=embedder.model)
    try:
        with _progress() as progress:
            task = progress.add_task("embedding", total=None)
            done = ingest_documents(
                files,
                backend.store,
                embedder,
                lambda count, total: progress.update(task, completed=count, total=total),
                all_again=all_again,
            )
        backend.save()
    finally:
        backend.store.close()
    typer.echo(f"{done.changed} changed, {done.removed} removed, {done.unchanged} unchanged")


@app.command()
def build(
    out: Annotated[
        Path | None,
        typer.Argument(help="Folder to write into; unset: where the faiss backend looks."),
    ] = None,
    handbook: Annotated[
        Path | None,
        typer.Option(help="Folder of Markdown guides; unset: the one that comes along."),
    ] = None,
    kind: Annotated[str, typer.Option(help="Kind of index: flat, ivf or hnsw.")] = "flat",
) -> None:
    """Make a FAISS knowledge base from guides, as a FAISS-only bot would have left it."""
    from farming_guide.bot_layout import Kind, index_paths
    from farming_guide.knowledge_base import build as build_knowledge_base
    from farming_guide.wiring import open_embedder

    settings = load_settings()
    chosen: Kind = kind  # type: ignore[assignment]  # checked by the next line
    place = out or Path(settings.database_backends["faiss"].settings["storage_path"])
    index_paths(place, chosen)
    with _progress() as progress:
        tasks = {stage: progress.add_task(stage, total=None) for stage in ("read", "embed")}
        summary = build_knowledge_base(
            handbook or settings.handbook,
            place,
            open_embedder(settings),
            lambda stage, done, total: progress.update(tasks[stage], completed=done, total=total),
            kind=chosen,
        )
    typer.echo(
        f"{summary.chunks} chunks of {summary.documents} guides ({summary.pages} pages), "
        f"{summary.dimension} dimensions by {summary.model}: {summary.index_path}"
    )


@app.command("settings")
def settings_command(
    toml: Annotated[bool, typer.Option("--toml", help="As a commented TOML file.")] = False,
) -> None:
    """Print every setting with its environment variable, default and meaning."""
    from farming_guide.settings_reference import as_markdown, as_toml

    typer.echo(as_toml() if toml else as_markdown(), nl=False)


@app.command()
def telegram() -> None:
    """Run the bot on Telegram until it is told to stop (TELEGRAM_BOT_TOKEN must be set)."""
    from farming_guide.telegram import run
    from farming_guide.wiring import open_bot

    _log_from(logging.INFO)
    settings = load_settings()
    if settings.telegram_token is None:
        raise ConfigurationError("TELEGRAM_BOT_TOKEN is not set: get a token from @BotFather")
    run(open_bot(settings), settings)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _log_from(level: int) -> None:
    """Log to standard error, so that answers alone are on standard output."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main() -> None:
    """Run the command; errors of ours are one line and an exit code."""
    _log_from(logging.WARNING)
    try:
        app()
    except (ConfigurationError, DocumentRefused, IntakeRefused, InvalidInput) as error:
        typer.echo(f"farming-guide: {error}", err=True)
        raise SystemExit(2) from None
    except VectorStoreError as error:
        typer.echo(f"farming-guide: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

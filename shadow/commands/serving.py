"""The command that serves the router to other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from shadow.commands.running import ConfigOption, err, errors_in_words, settings_from

__all__ = ["serve"]


def serve(
    config: ConfigOption = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="serve.host")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Port; 0: any.", show_default="serve.port"),
    ] = None,
    subject: Annotated[
        str, typer.Option(help="What is migrated, as its owners call it.")
    ] = "vector search",
) -> None:
    """Serve the router over HTTP, with the operators' page and metrics, until SIGTERM.

    Needs the extra `serve`.
    """
    from vectorstore.errors import ConfigurationError

    with errors_in_words():
        try:
            from shadow.serve.server import serve as run
        except ImportError as error:
            raise ConfigurationError(
                f"serving needs more packages ({error.name} is missing): "
                "pip install 'shadow-cutover[serve]'"
            ) from error
        settings = settings_from(config)
        given = {
            name: value for name, value in (("host", host), ("port", port)) if value is not None
        }
        section = settings.serve.model_copy(update=given)
        run(
            settings.model_copy(update={"serve": section}),
            subject=subject,
            on_ready=lambda address: err.print(f"serving at {address}", markup=False),
        )

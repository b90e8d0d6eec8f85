"""What every command shares: settings, errors in words, exit codes, and output for scripts."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from shadow.errors import GateRefused
from vectorstore.errors import (
    ConfigurationError,
    IntakeRefused,
    InvalidInput,
    StoreCorrupt,
    Unsupported,
    VectorStoreError,
)

if TYPE_CHECKING:
    from shadow.config import Settings
    from shadow.opening import Migration

__all__ = [
    "BAD_INPUT",
    "FAILED",
    "HOLD",
    "UNDECIDED",
    "ConfigOption",
    "JsonOption",
    "err",
    "errors_in_words",
    "migration",
    "out",
    "print_json",
    "settings_from",
    "stop",
]

# Exit codes, documented in docs/commands.md.
FAILED = 1
BAD_INPUT = 2
HOLD = 3
UNDECIDED = 4

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="TOML file with the settings.", show_default="config/shadow.toml"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Say in words what the project or the system refused, and leave with the exit code of that."""
    try:
        yield
    except GateRefused as error:
        stop(str(error), code=HOLD if error.holds else UNDECIDED)
    except (ConfigurationError, IntakeRefused, InvalidInput, StoreCorrupt, Unsupported) as error:
        stop(str(error), code=BAD_INPUT)
    except VectorStoreError as error:
        stop(str(error), code=FAILED)
    except BrokenPipeError:
        # Whoever read the output has read enough; Click ends the command quietly.
        raise
    except OSError as error:
        _drop_output()
        where = "" if error.filename is None else f": {error.filename}"
        forbidden = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        stop(f"{error.strerror or error}{where}", code=BAD_INPUT if forbidden else FAILED)
    except KeyboardInterrupt:
        stop("interrupted", code=130)


def stop(why: str, *, code: int) -> NoReturn:
    """Say why on standard error and exit; what lists several things keeps its lines."""
    lines = (" ".join(line.split()) for line in why.splitlines())
    err.print("shadow: " + "\n  ".join(filter(None, lines)), markup=False)
    raise typer.Exit(code)


def _drop_output() -> None:
    """Where standard output cannot be written to, let nothing try again when the process ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def settings_from(config: Path | None) -> Settings:
    """The settings, with warnings and worse logged on standard error."""
    import structlog

    from shadow.config_sources import load_settings

    settings = load_settings(config)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(
            max(getattr(logging, settings.log_level.upper()), logging.WARNING)
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    return settings


@contextmanager
def migration(
    config: Path | None, *, on_note: Callable[[str], None] | None = None
) -> Iterator[Migration]:
    """The migration of the settings, closed in the end; errors in words."""
    from shadow.opening import open_migration

    with errors_in_words():
        opened = open_migration(
            settings_from(config), on_note=on_note or (lambda note: err.print(note, markup=False))
        )
        try:
            yield opened
        finally:
            opened.close()


def print_json(values: Mapping[str, Any]) -> None:
    """Print an object for a script."""
    sys.stdout.write(json.dumps(values, indent=2, default=str) + "\n")
    sys.stdout.flush()

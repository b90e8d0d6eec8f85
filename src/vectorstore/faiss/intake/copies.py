"""The copy of foreign files that is made before anything else happens to them."""

from __future__ import annotations

import shutil
from pathlib import Path

from vectorstore.durable import sync_directory, sync_file, write_durably
from vectorstore.errors import ConfigurationError, IntakeRefused
from vectorstore.faiss.intake.layouts import Layout
from vectorstore.faiss.manifest import file_sum

__all__ = ["SUMS_NAME", "copied"]

SUMS_NAME = "SHA256SUMS"


def copied(layout: Layout, copy_to: Path) -> Layout:
    """Copy a layout's files into ``copy_to``, durably, with ``SHA256SUMS``; return it as copied.

    ``copy_to`` must be new, empty, or hold this very copy from an earlier run. Raises IntakeRefused
    if a file changes meanwhile, ConfigurationError if the folder is taken or cannot be written.
    """
    try:
        return _copied(layout, copy_to)
    except OSError as error:
        raise ConfigurationError(
            f"the copy into {copy_to} could not be made ({error}); nothing was changed: make room, "
            "or name another folder"
        ) from error


def _copied(layout: Layout, copy_to: Path) -> Layout:
    sums = "".join(f"{file_sum(one).sha256}  {one.name}\n" for one in layout.files)
    copy_to.mkdir(parents=True, exist_ok=True)
    copy = Layout(
        layout.name, copy_to / layout.index.name, tuple(copy_to / one.name for one in layout.sides)
    )
    if any(copy_to.iterdir()):
        kept = copy_to / SUMS_NAME
        if not kept.exists() or kept.read_text() != sums or not _matches(copy, sums):
            raise ConfigurationError(
                f"{copy_to} is not empty and holds something else; name a new folder for the copy"
            )
        return copy
    for source, target in zip(layout.files, copy.files, strict=True):
        shutil.copyfile(source, target)
        target.chmod(0o600)
        with target.open("rb") as file:
            sync_file(file.fileno())
    if not _matches(copy, sums):
        for target in copy.files:
            target.unlink()
        raise IntakeRefused(
            f"a file of {layout.index.parent} changed while it was copied; stop the program that "
            "writes it, or take in a copy that stands still"
        )
    write_durably(copy_to / SUMS_NAME, sums.encode())
    sync_directory(copy_to)
    return copy


def _matches(copy: Layout, sums: str) -> bool:
    present = all(one.is_file() for one in copy.files)
    return present and sums == "".join(
        f"{file_sum(one).sha256}  {one.name}\n" for one in copy.files
    )

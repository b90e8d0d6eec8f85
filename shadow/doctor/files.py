"""Traps 9 to 11: what FAISS files do when rows are deleted, processes share them, or pickles lie there."""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from pathlib import Path

from shadow.doctor.finding import Finding, Severity
from shadow.doctor.subject import Subject
from vectorstore.errors import StoreCorrupt
from vectorstore.faiss.intake.pickles import begins_with_dict
from vectorstore.faiss.snapshot import newest_snapshots, verify_snapshot

__all__ = ["check_files", "damaged_snapshots", "pickles_of"]

TOMBSTONES_SHARE_MAX = 0.2
OPCODES_MAX = 200_000
PICKLE_SUFFIXES = (".pkl", ".pickle")


def check_files(subject: Subject) -> Iterator[Finding]:
    """Findings about FAISS's rows and files."""
    yield from _tombstones(subject)
    running = subject.running
    if running is None:
        return
    if running.source_elsewhere is not None:
        yield Finding(
            10,
            "several processes, torn files",
            Severity.WARNING,
            "faiss.path is not where this migration's index came from",
            (running.source_elsewhere,),
            "if the index was only moved or the setting is left over, unset faiss.path; else what is there "
            "is another migration, with a state_directory of its own",
        )
    if running.source_changed or running.snapshots_damaged:
        yield Finding(
            10,
            "several processes, torn files",
            Severity.FAULT,
            "FAISS files do not say what they said when they were written",
            (
                *(
                    f"{one} differs from the copy that was taken in"
                    for one in running.source_changed
                ),
                *(f"snapshot {one}" for one in running.snapshots_damaged),
            ),
            "stop the program that still saves to the FAISS files and let it write through the router; "
            "a damaged snapshot is replaced by the next one that is made",
        )
    if running.source_pickles:
        foreign = [one for one in running.source_pickles if ": " in one]
        yield Finding(
            11,
            "pickles",
            Severity.FAULT if foreign else Severity.WARNING,
            "a side file is a pickle, which runs code when other programs load it",
            running.source_pickles,
            "the router reads it without running it; keep it from programs that use pickle.load "
            "(allow_dangerous_deserialization) and delete it when the migration is final",
        )


def damaged_snapshots(folder: Path) -> tuple[str, ...]:
    """Snapshots whose checksums do not hold, and why."""
    found = []
    for one in newest_snapshots(folder):
        try:
            verify_snapshot(one)
        except StoreCorrupt as error:
            found.append(f"{one.name}: {error}")
    return tuple(found)


def pickles_of(path: Path | None) -> tuple[str, ...]:
    """The pickles beside the index, with the names that each would import when loaded."""
    if path is None or not path.exists():
        return ()
    folder = path if path.is_dir() else path.parent
    found = []
    for one in sorted(folder.iterdir()):
        if one.is_file() and (one.suffix in PICKLE_SUFFIXES or begins_with_dict(one) is not None):
            names = ", ".join(sorted(_imports(one)))
            found.append(f"{one}: it imports {names}" if names else str(one))
    return tuple(found)


def _imports(path: Path) -> set[str]:
    """Names that a pickle asks for, read from its opcodes and never run."""
    names: set[str] = set()
    texts: list[str] = []
    with path.open("rb") as file:
        try:
            for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if number > OPCODES_MAX:
                    break
                if opcode.name in ("GLOBAL", "INST"):
                    names.add(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.add(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts = [*texts[-1:], argument]
        except ValueError:
            names.add("(not a whole pickle)")
    return names


def _tombstones(subject: Subject) -> Iterator[Finding]:
    settings = subject.faiss.describe()
    dead, live = int(settings["tombstones"]), subject.faiss.count()
    if dead <= TOMBSTONES_SHARE_MAX * max(1, live + dead):
        return
    yield Finding(
        9,
        "deleted FAISS rows",
        Severity.WARNING,
        f"a FAISS {settings['kind']} index cannot delete: {dead:,} of {live + dead:,} of its rows are dead",
        (f"{dead:,} tombstones beside {live:,} records: searches pass over them each time",),
        "restart a process that holds the index: loading a snapshot leaves dead rows behind; "
        "PostgreSQL deletes for real",
    )

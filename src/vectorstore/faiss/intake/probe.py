"""Reading foreign files once in a process that may crash, before this one reads them.

FAISS and the pickle machine are C code: a file made or damaged in the right way ends the process that
reads it. What the child survived, the parent reads in the same way.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from pathlib import Path

from vectorstore.errors import IntakeRefused
from vectorstore.faiss.intake.layouts import BOT, LANGCHAIN, Layout
from vectorstore.faiss.intake.pickles import check_opcodes
from vectorstore.faiss.intake.sides import read_side
from vectorstore.faiss.intake.vectors import open_index, read_any

__all__ = ["ANY_INDEX", "SIDES_ONLY", "WHOLE", "main", "probe"]

# How much of a layout is read: the index only if it keeps whole vectors, none of it, or any kind.
WHOLE = "whole"
SIDES_ONLY = "sides"
ANY_INDEX = "any"
REFUSED = 3
PROBE_SECONDS_MAX = 1_800
MEMORY_BASE_BYTES = 8 * 1024**3
MEMORY_FACTOR = 40
"""Address space granted to the child: a base, and this many times the size of the files."""

# -P keeps the working directory, where foreign files may lie, off the import path.
_CHILD = f"import sys; from {__name__} import main; sys.exit(main(sys.argv[1:]))"


def probe(layout: Layout, *, depth: str = WHOLE) -> None:
    """Read the files of ``layout`` in a child process; IntakeRefused if that fails in any way."""
    command = [sys.executable, "-P", "-c", _CHILD, depth, layout.name, *map(str, layout.files)]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter on our own module
            command, capture_output=True, check=False, text=True, timeout=PROBE_SECONDS_MAX
        )
    except subprocess.TimeoutExpired as error:
        raise IntakeRefused(
            f"reading {layout.index} took more than {PROBE_SECONDS_MAX:,} s; it is damaged or was "
            "made to harm"
        ) from error
    if done.returncode == REFUSED:
        raise IntakeRefused(done.stdout.strip())
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise IntakeRefused(
            f"{layout.index} or a file beside it ended the process that read it (exit status "
            f"{done.returncode}{': ' + last[0] if last else ''}): it is damaged or was made to harm; "
            "fetch it again from its source"
        )


def main(arguments: list[str]) -> int:
    """Read the files named on the command line; print the reason and return 3 if they are refused."""
    depth, name = arguments[:2]
    index, *sides = [Path(one) for one in arguments[2:]]
    layout = Layout(name, index, tuple(sides))
    limit = MEMORY_BASE_BYTES + MEMORY_FACTOR * sum(one.stat().st_size for one in layout.files)
    with contextlib.suppress(ValueError, OSError):
        # Not every system can limit this; the checks before and after do not depend on it.
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        if layout.name in (BOT, LANGCHAIN):
            check_opcodes(layout.sides[0])
        read_side(layout)
        if depth == WHOLE:
            open_index(layout.index)
        elif depth == ANY_INDEX:
            read_any(layout.index)
    except IntakeRefused as refusal:
        sys.stdout.write(str(refusal))
        return REFUSED
    return 0

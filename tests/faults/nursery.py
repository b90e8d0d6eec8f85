"""Real processes at the price of a fork: one that has imported everything forks the others.

To start Python and import FAISS takes a second of a processor, and a test that kills processes starts many.
Nothing is shared but code: the children open their own files, and die by SIGKILL like any process.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Nursery", "attribute"]

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = (
    "shadow.backups.restoring",
    "shadow.finalize",
    "shadow.service",
    "vectorstore.faiss.snapshot",
    "vectorstore.postgres.store",
)


class Nursery:
    """The process that forks. Its children are told by their process ids."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def start(
        self,
        target: str,
        arguments: Mapping[str, Any],
        *,
        stderr: Path,
        within: str | None = None,
        within_arguments: Mapping[str, Any] | None = None,
    ) -> int:
        """Fork a child that calls ``target`` (``module:function``) with JSON arguments; its process id.

        ``within`` names a function that gives a context manager to call it in.
        """
        return int(
            self._ask(
                "start",
                target=target,
                arguments=dict(arguments),
                stderr=str(stderr),
                within=within,
                within_arguments=dict(within_arguments or {}),
            )
        )

    def poll(self, pid: int) -> int | None:
        """How a child ended, as ``subprocess`` tells it; None if it is alive."""
        code = self._ask("poll", pid=pid)
        return None if code is None else int(code)

    def wait(self, pid: int) -> int:
        """Wait for a child's end; how it ended."""
        return int(self._ask("wait", pid=pid))

    def close(self) -> None:
        """End the process that forks."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _ask(self, what: str, **options: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, **options}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def attribute(path: str) -> tuple[Any, str]:
    """What has the attribute that ``package.module:Name.function`` ends in, and that attribute's name."""
    module, _, names = path.partition(":")
    owner = importlib.import_module(module)
    *outer, name = names.split(".")
    for one in outer:
        owner = getattr(owner, one)
    return owner, name


def _serve() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    ended: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        what = request.pop("what")
        answer: int | None
        if what == "start":
            answer = _fork(**request)
        else:
            answer = _ended(request["pid"], ended, 0 if what == "wait" else os.WNOHANG)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _ended(pid: int, ended: dict[int, int], options: int) -> int | None:
    if pid not in ended:
        found, status = os.waitpid(pid, options)
        if not found:
            return None
        ended[pid] = os.waitstatus_to_exitcode(status)
    return ended[pid]


def _fork(
    target: str,
    arguments: dict[str, Any],
    stderr: str,
    within: str | None,
    within_arguments: dict[str, Any],
) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        said = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDWR)
        # What the parent is asked and answers is not this child's to read or write.
        os.dup2(nothing, sys.stdin.fileno())
        os.dup2(nothing, sys.stdout.fileno())
        os.dup2(said, sys.stderr.fileno())
        around: AbstractContextManager[Any] = nullcontext()
        if within is not None:
            around = getattr(*attribute(within))(**within_arguments)
        with around:
            getattr(*attribute(target))(**arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()

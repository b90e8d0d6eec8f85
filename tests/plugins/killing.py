"""SIGKILL of a real process at a chosen point inside what it does.

A process that has imported everything waits, and forks one child for each thing that is to be cut short:
so a kill costs the time of a fork. Nothing is simulated: the child opens its own files, and the kernel
ends it between two instructions.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from shadow.config import Settings

__all__ = ["Killing", "Point"]

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = (
    "shadow.finalize",
    "shadow.service",
    "shadow.backups.restoring",
    "tests.faults.operations",
    "vectorstore.faiss.snapshot",
    "vectorstore.postgres.store",
)


@dataclass(frozen=True)
class Point:
    """Die at call number ``nth`` of ``where`` (``package.module:Name.function``): before or after it."""

    where: str
    after: bool = False
    nth: int = 1

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.where.split(':')[1]} no. {self.nth}"


class Killing:
    """Runs functions in children that die on the way."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.plugins.killing"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def cut_short(self, target: str, point: Point, settings: Settings, **arguments: Any) -> None:
        """Run ``target`` (``module:function``) in a child that dies at ``point``.

        Fails if the child did not get there: then nothing was cut short.
        """
        hit = self.kills(target, point, settings, **arguments)
        assert hit, f"{target} never came to {point}"

    def kills(self, target: str, point: Point, settings: Settings, **arguments: Any) -> bool:
        """The same; whether the child died there. It ends well if it did not get there."""
        code, said = self._run(target, point, settings, arguments)
        assert code in (0, -signal.SIGKILL), said[-3000:]
        return code != 0

    def complete(self, target: str, settings: Settings, **arguments: Any) -> None:
        """Run ``target`` in a child to its end."""
        code, said = self._run(target, None, settings, arguments)
        assert code == 0, said[-3000:]

    def close(self) -> None:
        """End the waiting process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _run(
        self, target: str, point: Point | None, settings: Settings, arguments: dict[str, Any]
    ) -> tuple[int, str]:
        told = settings.model_dump(mode="json")
        told["postgresql"]["dsn"] = settings.postgresql.dsn.get_secret_value()
        request = {
            "target": target,
            "point": None if point is None else asdict(point),
            "arguments": {"settings": told, **arguments},
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code, said = json.loads(self._process.stdout.readline())
        return int(code), str(said)


@pytest.fixture(scope="session")
def killing() -> Iterator[Killing]:
    """Processes that die at a chosen point."""
    waiting = Killing()
    yield waiting
    waiting.close()


def _owner(path: str) -> tuple[Any, str]:
    """What has the attribute that ``package.module:Name.function`` ends in, and that attribute's name."""
    module, _, names = path.partition(":")
    owner = importlib.import_module(module)
    *outer, name = names.split(".")
    for one in outer:
        owner = getattr(owner, one)
    return owner, name


def _dying(original: Callable[..., Any], point: Point) -> Callable[..., Any]:
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == point.nth and not point.after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if calls == point.nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def _child(request: dict[str, Any]) -> None:
    with ExitStack() as stack:
        if request["point"] is not None:
            point = Point(**request["point"])
            owner, name = _owner(point.where)
            stack.enter_context(mock.patch.object(owner, name, _dying(getattr(owner, name), point)))
        getattr(*_owner(request["target"]))(**request["arguments"])


def _wait_and_fork() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            os.close(read)
            os.dup2(write, sys.stderr.fileno())
            # The pipe to the test is not this child's to write to.
            os.dup2(write, sys.stdout.fileno())
            try:
                _child(request)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(write)
        with os.fdopen(read, errors="replace") as pipe:
            said = pipe.read()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), said]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _wait_and_fork()

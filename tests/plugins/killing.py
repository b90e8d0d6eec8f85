"""SIGKILL of a real process at a chosen point inside what it does.

Nothing is simulated: a child opens its own files, and the kernel ends it between two instructions.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from shadow.config import Settings
from tests.faults.nursery import Nursery, attribute

__all__ = ["Killing", "Point", "dying"]


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
        self._nursery = Nursery()

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
        """End the process that the children come from."""
        self._nursery.close()

    def _run(
        self, target: str, point: Point | None, settings: Settings, arguments: dict[str, Any]
    ) -> tuple[int, str]:
        told = settings.model_dump(mode="json")
        told["postgresql"]["dsn"] = settings.postgresql.dsn.get_secret_value()
        with tempfile.TemporaryDirectory() as directory:
            stderr = Path(directory) / "stderr"
            pid = self._nursery.start(
                target,
                {"settings": told, **arguments},
                stderr=stderr,
                within=None if point is None else f"{__name__}:dying",
                within_arguments=None if point is None else asdict(point),
            )
            return self._nursery.wait(pid), stderr.read_text(errors="replace")


@pytest.fixture(scope="session")
def killing() -> Iterator[Killing]:
    """Processes that die at a chosen point."""
    started = Killing()
    yield started
    started.close()


@contextmanager
def dying(where: str, after: bool, nth: int) -> Iterator[None]:
    """Kill this process when the block comes to that point."""
    owner, name = attribute(where)
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    with mock.patch.object(owner, name, call):
        yield

"""Work that no handler of a signal can break off halfway."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

__all__ = ["Apart"]

T = TypeVar("T")


class _Task(Generic[T]):
    """One piece of work; ``done`` is held until it has ended."""

    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.result: T
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


class Apart:
    """Does the main thread's work in a thread of its own, and everybody else's where they are.

    Python runs the handlers of signals in the main thread, between any two of its steps. One that raises
    (Ctrl-C in a notebook, the time limit of a task) would leave transactions open, locks taken and
    indexes half changed, under a process that lives on. So it only breaks off the wait, and the work is
    done to its end.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: SimpleQueue[_Task[object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns; raises what it raises."""
        if threading.current_thread() is not threading.main_thread():
            return work()
        # After a fork the thread is not there any more.
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        task: _Task[T] = _Task(work)
        self._tasks.put(task)  # type: ignore[arg-type]
        task.done.acquire()
        if task.error is not None:
            raise task.error
        return task.result

    def close(self) -> None:
        """End the thread when it has done what it was given."""
        self._tasks.put(None)

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task.result = task.work()
            except BaseException as error:  # noqa: BLE001 - it is raised where the work was asked for
                task.error = error
            finally:
                task.done.release()

"""Group commit by itself: who shares a group, who waits for whom, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from shadow.writes.group_commit import GATHER_REQUESTS_MIN, GroupCommit

CROWD = GATHER_REQUESTS_MIN
WAIT_S_MAX = 30.0


class Commits:
    """Commits that wait until the test lets them end, and remember their groups."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()

    def __call__(self, group: Sequence[int]) -> Sequence[int]:
        self.groups.append(list(group))
        self.begun.release()
        assert self.may_end.wait(WAIT_S_MAX)
        return group


def queued(commit: GroupCommit[int, int], count: int) -> None:
    """Wait until so many stand in the queue."""
    deadline = time.monotonic() + WAIT_S_MAX
    while len(commit._queue) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def crowd(
    commits: Commits, commit: GroupCommit[int, int], pool: ThreadPoolExecutor, *, count: int = CROWD
) -> None:
    """Let one request commit alone and then a crowd together, as if that had taken half a minute."""
    first = pool.submit(commit.submit, 0)
    assert commits.begun.acquire(timeout=WAIT_S_MAX)
    others = [pool.submit(commit.submit, number) for number in range(1, count + 1)]
    queued(commit, count)
    commits.may_end.set()
    assert [one.result(WAIT_S_MAX) for one in (first, *others)] == list(range(count + 1))
    assert [len(group) for group in commits.groups] == [1, count]
    commits.groups.clear()
    commit._last_s = WAIT_S_MAX


def test_a_leader_waits_for_those_of_the_last_group() -> None:
    """Whoever comes while it waits is in its group, and the last of them ends the wait."""
    commits = Commits()
    commit = GroupCommit(commits, lambda *_: None, gather_s_max=WAIT_S_MAX)
    with ThreadPoolExecutor(CROWD + 1) as pool:
        crowd(commits, commit, pool)
        started = time.monotonic()
        again = []
        for number in range(CROWD):
            again.append(pool.submit(commit.submit, number))
            if number < CROWD - 1:
                queued(commit, number + 1)
        assert [one.result(WAIT_S_MAX) for one in again] == list(range(CROWD))
        assert time.monotonic() - started < WAIT_S_MAX / 2
    assert commits.groups == [list(range(CROWD))]


def test_it_waits_no_longer_than_the_last_group_took() -> None:
    """One that comes alone after a crowd is late once; after that nobody is waited for."""
    commits = Commits()
    commit = GroupCommit(commits, lambda *_: None, gather_s_max=WAIT_S_MAX)
    with ThreadPoolExecutor(CROWD + 1) as pool:
        crowd(commits, commit, pool)
        commit._last_s = 0.2
        started = time.monotonic()
        assert commit.submit(7) == 7
        assert 0.2 <= time.monotonic() - started < WAIT_S_MAX / 2
        commit._last_s = WAIT_S_MAX
        assert commit.submit(8) == 8
        assert time.monotonic() - started < WAIT_S_MAX / 2
    assert commits.groups == [[7], [8]]


def test_a_few_are_not_waited_for() -> None:
    """A group that came about by chance says nothing of the next one."""
    commits = Commits()
    commit = GroupCommit(commits, lambda *_: None, gather_s_max=WAIT_S_MAX)
    with ThreadPoolExecutor(CROWD) as pool:
        crowd(commits, commit, pool, count=CROWD - 1)
        started = time.monotonic()
        assert commit.submit(9) == 9
        assert time.monotonic() - started < WAIT_S_MAX / 2


def test_an_interrupt_while_it_waits_leaves_the_lead_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever was interrupted wrote nothing, and the next one is served."""
    commits = Commits()
    commit = GroupCommit(commits, lambda *_: None, gather_s_max=WAIT_S_MAX)
    with ThreadPoolExecutor(CROWD + 1) as pool:
        crowd(commits, commit, pool)

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(commit._arrived, "wait_for", interrupted)
            with suppress(KeyboardInterrupt):
                commit.submit(1)
                pytest.fail("it was not interrupted")
        assert not commit._queue
        commit._last_s = 0.0
        assert pool.submit(commit.submit, 2).result(WAIT_S_MAX) == 2
    assert commits.groups == [[2]]

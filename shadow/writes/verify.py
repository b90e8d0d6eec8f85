"""Verify: proof that both stores hold the same, by digests of (id, seq, vector, text, metadata).

Ranges in byte order of ids are digested on the server and here; where they differ the rows are told
apart one by one. A row that differs because one store is ahead is looked at again after it caught up.
"Differs" and "could not check" are different results.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from shadow.writes.faiss_follower import FaissFollower
from vectorstore.digests import Digest, DigestMethod, digest_of, row_digest
from vectorstore.errors import StoreUnavailable
from vectorstore.faiss.store import FaissStore
from vectorstore.postgres.digests import best_method, digest_range, digest_rows
from vectorstore.postgres.store import PostgresStore

__all__ = ["Clean", "CouldNotCheck", "Differs", "Verified", "verify"]

# Small enough that little is left for one side to do alone when the other has ended.
RANGE_ROWS = 2_000
RANGES_AT_ONCE = 2
SUSPECTS_MAX = 100_000
RECHECK_S_MAX = 30.0
RECHECK_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Clean:
    """Both stores hold the same ``rows``, by ``method``."""

    rows: int
    method: str


@dataclass(frozen=True, slots=True)
class Differs:
    """Ids that differ, by kind: ``missing`` from PostgreSQL, ``extra`` there, ``stale`` (another
    version of the row), ``different`` (the same version with other content)."""

    rows: int
    method: str
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    different: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them, in byte order."""
        return tuple(sorted(self.missing + self.extra + self.stale + self.different))


@dataclass(frozen=True, slots=True)
class CouldNotCheck:
    """The check could not be made or ended, and why; nothing is said about the rows."""

    why: str
    rows: int = 0
    method: str = ""


Verified = Clean | Differs | CouldNotCheck


@dataclass(frozen=True, slots=True)
class _Row:
    seq: int
    digest: int


@dataclass(frozen=True, slots=True)
class _Range:
    """The ids after ``after`` up to ``upto`` in FAISS, and the server's digest to come."""

    after: str
    upto: str | None
    ids: Sequence[str]
    theirs: Future[Digest]


@dataclass(frozen=True, slots=True)
class _Look:
    """One row as both stores showed it, where they differed."""

    faiss: _Row | None
    postgresql: _Row | None

    @property
    def kind(self) -> str:
        if self.postgresql is None:
            return "missing"
        if self.faiss is None:
            return "extra"
        return "stale" if self.faiss.seq != self.postgresql.seq else "different"


def verify(
    *,
    faiss: FaissFollower,
    postgresql: PostgresStore,
    method: DigestMethod | None = None,
    suspects_max: int = SUSPECTS_MAX,
    on_rows: Callable[[int, int], None] | None = None,
) -> Verified:
    """Compare every row of both stores.

    ``faiss`` keeps its copy at the head of the journal. When more than ``suspects_max`` rows differ the
    rest is not looked at: it could not check. ``on_rows`` is told (rows done, in all).
    """
    try:
        chosen = method or best_method(postgresql.facts)
        faiss.follow()
        copy = faiss.store
        suspects, rows = _suspects(copy, postgresql, chosen, suspects_max, on_rows)
        if len(suspects) > suspects_max:
            return CouldNotCheck(
                f"at least {len(suspects):,} rows differ, more than can be told apart one by one: run "
                "`shadow backfill` again",
                rows,
                chosen,
            )
        return _rechecked(suspects, rows, faiss, copy, postgresql, chosen)
    except StoreUnavailable as error:
        return CouldNotCheck(str(error))


def _suspects(
    faiss: FaissStore,
    postgresql: PostgresStore,
    method: DigestMethod,
    suspects_max: int,
    on_rows: Callable[[int, int], None] | None,
) -> tuple[list[str], int]:
    """Ids in ranges whose digests differ, if the rows themselves do; and how many rows there are."""
    suspects: list[str] = []
    total, done = faiss.count(), 0
    # The server digests the next ranges, in connections of its own, while this thread digests one:
    # waiting for an answer leaves the interpreter to it.
    with ThreadPoolExecutor(RANGES_AT_ONCE, "shadow-verify") as pool:
        ranges = _ranges(faiss, postgresql, method, pool)
        waiting = deque(islice(ranges, RANGES_AT_ONCE))
        while waiting:
            waiting.extend(islice(ranges, 1))
            one = waiting.popleft()
            ours = faiss.digests(one.ids, method)
            if digest_of(digest for _, _, digest in ours) != one.theirs.result():
                rows = {name: _Row(seq, digest) for name, seq, digest in ours}
                suspects += _differing(rows, postgresql, one.after, one.upto, method, suspects_max)
                if len(suspects) > suspects_max:
                    break
            done += len(ours)
            if on_rows is not None:
                on_rows(done, max(total, done))
    return suspects, done


def _ranges(
    faiss: FaissStore, postgresql: PostgresStore, method: DigestMethod, pool: ThreadPoolExecutor
) -> Iterator[_Range]:
    """Ranges that cover every id there can be; the server begins with one when it is asked for."""
    after: str | None = ""
    while after is not None:
        ids = faiss.ids(after=after, limit=RANGE_ROWS)
        upto = None if len(ids) < RANGE_ROWS else ids[-1]
        theirs = pool.submit(digest_range, postgresql, after=after, upto=upto, method=method)
        yield _Range(after, upto, ids, theirs)
        after = upto


def _differing(
    ours: Mapping[str, _Row],
    postgresql: PostgresStore,
    after: str,
    upto: str | None,
    method: DigestMethod,
    suspects_max: int,
) -> list[str]:
    theirs: dict[str, _Row] = {}
    start = after
    while True:
        page = digest_rows(postgresql, after=start, upto=upto, limit=RANGE_ROWS, method=method)
        theirs.update({row[0]: _Row(row[1], row[2]) for row in page})
        if len(page) < RANGE_ROWS or len(theirs) > suspects_max + len(ours):
            break
        start = page[-1][0]
    return sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )


def _rechecked(
    suspects: Sequence[str],
    rows: int,
    faiss: FaissFollower,
    copy: FaissStore,
    postgresql: PostgresStore,
    method: DigestMethod,
) -> Verified:
    """Look at the suspects again until each has agreed once or differed twice in the same way.

    Each look waits until PostgreSQL has applied what FAISS had, and the next one until FAISS has
    applied what PostgreSQL had. So a row that shows the same two versions in two looks running is not
    on its way: the stores differ.
    """
    deadline = time.monotonic() + RECHECK_S_MAX
    confirmed: dict[str, _Look] = {}
    before: dict[str, _Look] = {}
    left = list(suspects)
    while left:
        reached = faiss.follow()
        if faiss.store is not copy:
            return CouldNotCheck(
                "another copy of FAISS was put in place while they were compared, by a repair or after a "
                "truncation; verify again",
                rows,
                method,
            )
        if not _wait_for(postgresql, reached, deadline):
            return CouldNotCheck(
                f"{len(left):,} rows differ and PostgreSQL did not reach journal entry {reached} "
                f"within {RECHECK_S_MAX:.0f} s, so they may only be late; verify again when it has",
                rows,
                method,
            )
        now = _look(left, copy, postgresql, method)
        confirmed |= {name: look for name, look in now.items() if before.get(name) == look}
        left = [name for name in now if name not in confirmed]
        before = now
        if left and time.monotonic() > deadline:
            return CouldNotCheck(
                f"{len(left):,} rows kept changing while they were compared; verify again",
                rows,
                method,
            )
    if not confirmed:
        return Clean(rows, method)
    kinds: dict[str, list[str]] = {"missing": [], "extra": [], "stale": [], "different": []}
    for name in sorted(confirmed):
        kinds[confirmed[name].kind].append(name)
    return Differs(rows, method, **{kind: tuple(found) for kind, found in kinds.items()})


def _wait_for(postgresql: PostgresStore, seq: int, deadline: float) -> bool:
    while postgresql.applied_seq() < seq:
        if time.monotonic() > deadline:
            return False
        time.sleep(RECHECK_PAUSE_S)
    return True


def _look(
    ids: Sequence[str], faiss: FaissStore, postgresql: PostgresStore, method: DigestMethod
) -> dict[str, _Look]:
    """Those of ``ids`` that differ now, and how."""
    found: dict[str, _Look] = {}
    for start in range(0, len(ids), RANGE_ROWS):
        part = ids[start : start + RANGE_ROWS]
        ours = {r.id: _Row(r.seq, row_digest(r, method)) for r in faiss.get(part)}
        theirs = {r.id: _Row(r.seq, row_digest(r, method)) for r in postgresql.get(part)}
        for name in part:
            mine, other = ours.get(name), theirs.get(name)
            if mine != other:
                found[name] = _Look(mine, other)
    return found

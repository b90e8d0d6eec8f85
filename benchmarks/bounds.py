"""What bounds a figure whose target a machine may not let it reach: other figures of the same run.

Where a target is missed, these are told with it: a ratio to something that is not ours, a floor that is
itself measured, or processor time that is all used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from benchmarks.results import Figure

__all__ = ["BOUNDED_BY", "missed"]

RAW = "raw psycopg, prepared, binary"
TEXT, CONNECTION = "naive: text, kept connection", "naive: text, connection per query"
SERVER, TOASTED = "server execution time", "server execution time, default storage"
MD5 = "md5 of text on the server"

BOUNDED_BY: Mapping[str, tuple[str, ...]] = {
    "router, mirror off / bare FAISS, 382 x 1,536, p50": (
        "router, mirror off, over FaissStore, 382 x 1,536, p50",
        "router, mirror off, over FaissStore, 100 x 64, p50",
    ),
    **{
        f"closed loop, 100 % offered / off, {data}, {words}": (
            f"closed loop, off / off a round before, {data}, {words}",
        )
        for data in ("382 x 1,536", "10,000 x 1,536")
        for words in ("p99", "throughput")
    },
    f"PostgresStore / {SERVER}, p50": (f"{RAW} / {SERVER}, p50",),
    "raw, default storage / PostgresStore, p50": (f"{TOASTED} / {SERVER}, p50",),
    f"{TEXT} / PostgresStore, p50": (f"{TEXT} / {RAW}, p50",),
    f"{CONNECTION} / PostgresStore, p50": (f"{CONNECTION} / {RAW}, p50",),
    **{
        f"open loop, 200/s, {way} / off, p99": ("open loop, 200/s, off / off a round before, p99",)
        for way in ("all mirrored", "shadow hangs", "shadow refuses")
    },
    **{
        f"primary during backfill / alone, {words}": (
            f"primary alone / alone a round before, {words}",
        )
        for words in ("p99", "throughput")
    },
    "one worker / server COPY, rows/s": ("product, one worker: cores busy",),
    "two workers / server COPY, rows/s": ("product, two workers: cores busy",),
    "one worker / text INSERT, rows/s": ("server COPY / text INSERT, rows/s",),
    "journal, one / bare fdatasync, per record": (
        "SQLite alone, one / bare fdatasync, per record",
        "processor time, SQLite alone, one / bare fdatasync, per record",
        "processor time, journal, one / bare fdatasync, per record",
    ),
    "journal, batch of 32 / bare fdatasync, per record": (
        "SQLite alone, batch of 32 / bare fdatasync, per record",
    ),
    "journal, 32 threads / bare fdatasync, per record": (
        "fdatasync, 32 threads / bare fdatasync, per record",
    ),
    "router / plain PostgreSQL upsert, postgresql answers, p50": (
        "bare SQLite, then PostgreSQL / plain PostgreSQL upsert, p50",
        "processor time of the caller: bare SQLite, then PostgreSQL",
        "processor time of the caller: router, postgresql answers",
    ),
    **{
        f"server digests, two ranges / {MD5}{process}, rows/s": (
            f"the vectors' wire form alone, if no core were ever idle / {MD5}, rows/s",
        )
        for process in ("", ", one process")
    },
    f"verify / {MD5}, rows/s": (f"both digests, if no core were ever idle / {MD5}, rows/s",),
}


def missed(figures: Iterable[Figure]) -> list[tuple[Figure, list[Figure]]]:
    """The figures that missed their target, each with those that bound it."""
    known = list(figures)
    found = []
    for figure in known:
        if figure.met is False:
            names = BOUNDED_BY.get(figure.name, ())
            found.append((figure, [one for one in known if one.name.startswith(names)]))
    return found

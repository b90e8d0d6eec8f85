"""Finalize ends dual running once and for all, also when whoever began it is killed."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from shadow.core.phases import Phase
from shadow.errors import CutoverRefused, JournalSealed, RouteConflict
from shadow.finalize import finalize, is_open
from shadow.routes import RouteBook
from shadow.verdict import VerdictDesk
from shadow.writes.repair import repair
from tests.plugins.killing import Killing, Point
from tests.plugins.migrations import SmallMigration, record, until
from vectorstore.errors import StoreUnavailable
from vectorstore.faiss.snapshot import load_snapshot
from vectorstore.postgres.store import PostgresStore


def ready(small: SmallMigration) -> None:
    small.filled()
    small.flipped()


STAGES = {
    "sealed": Point("shadow.finalize:complete"),
    "postgresql is final": Point("vectorstore.postgres.store:PostgresStore.finalize", after=True),
    "route": Point("shadow.finalize:_archive"),
    "archive half copied": Point("shadow.writes.snapshots:copy_durably", nth=2),
    "archived": Point("shadow.finalize:sync_directory"),
    "all but the note": Point("shadow.routes:RouteBook.note"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_finalize_that_was_killed_is_completed_by_a_running_router(
    small_migration: SmallMigration, killing: Killing, stage: str
) -> None:
    """Wherever SIGKILL hits it, a router finishes it within seconds; the archive holds all of FAISS, and
    writes go to PostgreSQL."""
    ready(small_migration)
    killing.cut_short("tests.faults.operations:finalize", STAGES[stage], small_migration.settings)
    with small_migration.opened() as migration:
        assert is_open(migration)
    with small_migration.routed() as router, small_migration.opened() as migration:
        seq = router.upsert([record("after")])
        assert seq > migration.journal.head()
        assert [one.id for one in router.get(["after"])] == ["after"]
        until("the end of it", lambda: not is_open(migration))
        assert migration.routes.current().phase is Phase.FINAL
        archive = next((migration.directory / "archive").iterdir())
        assert load_snapshot(archive).count() == 20
    with small_migration.routed() as router:
        router.delete(["after"])
        assert router.count() == 20


def test_writes_between_seal_and_end_wait_and_succeed(small_migration: SmallMigration) -> None:
    """A write that meets the seal waits for PostgreSQL to take writes of its own; none fails, none is
    lost, and the writer sees its own."""
    ready(small_migration)
    real = PostgresStore.finalize

    def slowly(store: PostgresStore) -> object:
        time.sleep(0.7)
        return real(store)

    failed: list[BaseException] = []
    written: list[str] = []
    with small_migration.routed() as router, small_migration.opened() as migration:
        until("the flip", lambda: router.route.phase is Phase.POSTGRESQL)
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                name = f"w-{number}"
                number += 1
                try:
                    router.upsert([record(name)])
                    assert router.get([name]), f"{name} is not seen"
                    written.append(name)
                except BaseException as error:
                    failed.append(error)
                    return

        writer = threading.Thread(target=write)
        writer.start()
        until("some writes", lambda: len(written) > 20)
        migration.postgresql.look()
        migration.lag.refresh()
        with mock.patch.object(PostgresStore, "finalize", slowly):
            finalize(migration, who="test", why="test")
        before = len(written)
        until("writes after it", lambda: bool(failed) or len(written) > before + 20)
        stop.set()
        writer.join()
        assert failed == []
        assert len(migration.link.open().get(written)) == len(written)


def test_a_rollback_that_comes_between_keeps_the_migration_from_being_final(
    small_migration: SmallMigration,
) -> None:
    """PostgreSQL became worse and all reads went back to FAISS after the finalize had looked and before it
    sealed: nothing is sealed, and FAISS answers and follows on."""
    ready(small_migration)
    with small_migration.opened() as migration:
        migration.postgresql.look()
        migration.lag.refresh()
        level = VerdictDesk.behind

        def worse(desk: VerdictDesk) -> str | None:
            migration.routes.change(
                migration.routes.current(),
                who="another process",
                why="automatic rollback",
                phase=Phase.SHADOW,
                latch="recall has become worse",
            )
            return level(desk)

        with (
            mock.patch.object(VerdictDesk, "behind", worse),
            pytest.raises(RouteConflict, match="somebody changed it"),
        ):
            finalize(migration, who="test", why="test")
        assert not migration.journal.sealed()
        assert migration.routes.current().phase is Phase.SHADOW


def test_a_table_that_does_not_hold_everything_is_never_final(
    small_migration: SmallMigration,
) -> None:
    """If PostgreSQL is let go of between the check and the seal, the seal is taken off again and
    writes go to the journal as before."""
    ready(small_migration)
    with small_migration.opened() as migration:
        migration.postgresql.look()
        real = migration.routes.seal

        def seal(_: object, *told: Any, **named: Any) -> None:
            migration.link.open().detach()
            real(*told, **named)

        with (
            mock.patch.object(RouteBook, "seal", seal),
            pytest.raises(CutoverRefused, match="not final"),
        ):
            finalize(migration, who="test", why="test")
        assert not migration.journal.sealed()
    with small_migration.routed() as router:
        router.upsert([record("goes on")])
        assert router.get(["goes on"])


def test_after_the_end_faiss_answers_no_more(small_migration: SmallMigration) -> None:
    """With PostgreSQL away a final migration fails its reads rather than answer from FAISS, which has
    stopped following."""
    ready(small_migration)
    with small_migration.opened() as migration:
        migration.postgresql.look()
        finalize(migration, who="test", why="test")
    quick = small_migration.with_settings(router={"timeout_ms": 200.0})
    with quick.routed() as router:
        until("postgresql", lambda: router.count() == 20)
        router.delete(["r-0"])
        with (
            mock.patch.object(PostgresStore, "count", side_effect=StoreUnavailable("away")),
            pytest.raises(StoreUnavailable, match="final"),
        ):
            router.count()


def test_the_command_rollback_is_refused_and_leaves_no_wish(
    small_migration: SmallMigration,
) -> None:
    """There is no way back after the end: the command says so, and asks for nothing."""
    ready(small_migration)
    with small_migration.opened() as migration:
        migration.postgresql.look()
        finalize(migration, who="test", why="test")
        asked = migration.routes.request()
    rollback = small_migration.command("rollback")
    printed, said = rollback.communicate(timeout=60)
    assert rollback.returncode == 1, printed + said
    assert "the migration is final" in said
    assert "shadow restore" in said
    with small_migration.opened() as migration:
        assert migration.routes.request() == asked


def test_what_is_written_after_the_end_is_no_fault(small_migration: SmallMigration) -> None:
    """FAISS followed no longer, so verify and repair refuse to compare, keep nothing among the evidence
    and touch no row; nor does a repair that was decided on before the end."""
    ready(small_migration)
    with small_migration.opened() as migration:
        migration.postgresql.look()
        finalize(migration, who="test", why="test")
        kept = migration.verification()
    with small_migration.routed() as router:
        router.upsert([record(f"live-{n}") for n in range(10)])
    for words in (["verify"], ["repair", "--from", "faiss"], ["repair", "live-0"]):
        command = small_migration.command(*words)
        printed, said = command.communicate(timeout=60)
        assert command.returncode == 1, printed + said
        assert "the migration is final: FAISS is archived, there is nothing to compare" in said
    with small_migration.opened() as migration:
        assert migration.verification() == kept
        faiss = migration.load_faiss()
        with pytest.raises(JournalSealed, match="final"):
            repair(
                ["live-0"],
                journal=migration.journal,
                faiss=faiss,
                postgresql=migration.link.open(),
                truth_from="faiss",
            )
        assert len(migration.link.open().get([f"live-{n}" for n in range(10)])) == 10


def test_a_repair_that_the_end_overtakes_undoes_no_write(small_migration: SmallMigration) -> None:
    """The migration becomes final, and the row is written anew, between the decision and the change."""
    ready(small_migration)
    with small_migration.opened() as migration:
        faiss, store = migration.load_faiss(), migration.link.open()
        held = store.get(["r-1"])[0]
        assert store.repair("r-1", replace(held, text="a lie"), expected_seq=held.seq)
        real = PostgresStore.repair

        def overtaken(store: PostgresStore, *args: Any, **options: Any) -> bool:
            migration.postgresql.look()
            finalize(migration, who="test", why="test")
            with small_migration.routed() as router:
                router.upsert([record("r-1", "live")])
            options["expected_seq"] = store.get(["r-1"])[0].seq
            return real(store, *args, **options)

        with (
            mock.patch.object(PostgresStore, "repair", overtaken),
            pytest.raises(JournalSealed, match="final"),
        ):
            repair(
                ["r-1"],
                journal=migration.journal,
                faiss=faiss,
                postgresql=store,
            )
        assert store.get(["r-1"])[0].text == "live"


def test_a_second_finalize_has_nothing_to_do(small_migration: SmallMigration) -> None:
    """It says so without asking anything."""
    ready(small_migration)
    with small_migration.opened() as migration:
        migration.postgresql.look()
        finalize(migration, who="test", why="test")
    again = small_migration.command("finalize")
    printed, said = again.communicate(timeout=60)
    assert (again.returncode, printed) == (0, "the migration is final already\n"), said

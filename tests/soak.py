"""The long run: the state machine, the kill harness and outages, for as long as asked.

    python -m tests.soak --minutes 30 --seed 1

Prints its seed first and a tally last; the first broken invariant ends it with an error and the seed of
the round that broke it. ``--kills N`` kills that many times per round of the harness (default 200).
"""

from __future__ import annotations

import argparse
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from psycopg import conninfo

from tests.fakes.running import Reader, record_of, running, through, until
from tests.faults.router_kills import PostgresqlKiller, check, kill_routers, settings_of
from tests.faults.tcp_proxy import TcpProxy
from tests.machine.rules import MigrationMachine
from tests.machine.world import World
from vectorstore.postgres.embedded import EmbeddedServer

__all__ = ["main"]

EXAMPLES = 300
OUTAGE_WRITES = 20_000
BATCH = 20


def main(arguments: list[str] | None = None) -> int:
    """Run rounds until the time is up; 0 if nothing broke."""
    parser = argparse.ArgumentParser(prog="tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--kills", type=int, default=200)
    chosen = parser.parse_args(arguments)
    start = secrets.randbelow(1 << 31) if chosen.seed is None else chosen.seed
    print(f"soak: seed {start}, {chosen.minutes:g} minutes", flush=True)
    draw = random.Random(start)
    deadline = time.monotonic() + 60 * chosen.minutes
    tally: Counter[str] = Counter()
    rounds: list[tuple[str, Callable[[int], Counter[str]]]] = [
        ("kills", lambda number: kills(number, chosen.kills)),
        ("outage", outage),
        ("machine", machine),
    ]
    while True:
        for name, run in rounds:
            number = draw.randrange(1 << 31)
            began = time.monotonic()
            try:
                found = run(number)
            except BaseException:
                print(f"soak: {name} broke; seed {start}, its own seed {number}", flush=True)
                print(f"soak: tally until then: {dict(sorted(tally.items()))}", flush=True)
                raise
            tally += Counter({f"{name}: {what}": count for what, count in found.items()})
            tally[f"{name}: rounds"] += 1
            print(f"soak: {name} {time.monotonic() - began:.0f} s {dict(found)}", flush=True)
            if time.monotonic() > deadline:
                print(f"soak: nothing broke; seed {start}; tally", flush=True)
                for what, count in sorted(tally.items()):
                    print(f"  {what}: {count:,}")
                return 0


def machine(number: int) -> Counter[str]:
    """The state machine, longer than in the suite."""
    reached: Counter[str] = Counter()

    class Counting(MigrationMachine):
        def reached(self, world: World) -> None:
            reached.update(world.tally)

    seed(number)(Counting)
    run_state_machine_as_test(
        Counting,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=80,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
    return reached


def kills(number: int, count: int) -> Counter[str]:
    """The kill harness, PostgreSQL being killed too."""
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    cluster = Path(tempfile.mkdtemp(prefix="shadow-soak-"))
    killer = PostgresqlKiller(cluster, seed=number, pause_s_max=8.0)
    try:
        chosen = settings_of(directory, killer.dsn)
        with killer.at_work():
            report = kill_routers(directory, chosen, kills=count, seed=number, timeout_s=3_600.0)
        return check(chosen, report) + Counter({"kills": count}) + killer.kills
    finally:
        killer.close()
        shutil.rmtree(cluster, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)


def outage(number: int) -> Counter[str]:
    """PostgreSQL is away, as shadow and as primary, during a long burst of writes."""
    directory = Path(tempfile.mkdtemp(prefix="shadow-soak-"))
    server = EmbeddedServer(directory / "postgresql")
    dsn = server.start()
    parts = conninfo.conninfo_to_dict(dsn)
    draw = random.Random(number)
    reader_stores: Counter[str] = Counter()
    try:
        with (
            TcpProxy((str(parts["host"]), int(str(parts["port"])))) as proxy,
            running(directory / "state", through(dsn, proxy.port), "soaked") as migration,
        ):
            migration.router.upsert([record_of(0)])
            migration.fill()
            reader = Reader(migration)
            for primary in (False, True):
                if primary:
                    migration.flip()
                with reader.reading():
                    proxy.switch("refuse")
                    proxy.cut()
                    for start in range(0, OUTAGE_WRITES, BATCH):
                        numbers = [draw.randrange(2_000) for _ in range(BATCH)]
                        records = [record_of(n, version=start) for n in dict.fromkeys(numbers)]
                        reader.acknowledged = migration.router.upsert(records)
                    proxy.switch("pass")
                    rows = migration.proves_equal()
                    wanted = "postgresql" if primary else "faiss"
                    until(f"answers by {wanted}", lambda w=wanted: reader.stores[-50:] == [w] * 50)  # type: ignore[misc]
            reader_stores.update(reader.stores)
            head = migration.head()
    finally:
        server.destroy()
        shutil.rmtree(directory, ignore_errors=True)
    return Counter({"writes": head, "rows": rows}) + Counter(
        {f"reads by {store}": count for store, count in reader_stores.items()}
    )


if __name__ == "__main__":
    sys.exit(main())

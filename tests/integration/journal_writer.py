"""Workers that append to a journal until they are killed; run by the tests in processes of their own."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import traceback
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np

from shadow.writes.journal import Journal
from tests.faults.kill_harness import AckLog
from vectorstore.types import Metric, Record

DIMENSION = 32


def open_journal(directory: str | Path) -> Journal:
    """The journal that all workers of a test share."""
    journal = Journal.open(Path(directory))
    journal.bind(DIMENSION, Metric.L2)
    return journal


def change(key: str) -> tuple[str, Record]:
    """A change whose whole content follows from its key, so that a reader can check it."""
    seed = int.from_bytes(key.encode(), "big")
    vector = np.random.default_rng(seed).random(DIMENSION, dtype=np.float32)
    return key, Record(key, vector, f"text of {key} " * 40, {"key": key})


def write(acks: AckLog, *, directory: str, name: str, threads: int = 2) -> None:
    """Append batches of 1 to 5 from several threads, telling of each before and after."""
    journal = open_journal(directory)
    lock = threading.Lock()

    def loop(thread: int) -> None:
        sizes = random.Random(f"{name}-{acks.life}-{thread}")
        for number in range(1_000_000):
            op_id = f"{name}-{acks.life}-{thread}-{number}"
            keys = [f"{op_id}-{i}" for i in range(sizes.randint(1, 5))]
            with lock:
                acks.intend(op_id=op_id, keys=keys)
            appended = journal.append([change(key) for key in keys], op_id=op_id)
            with lock:
                acks.acknowledge(op_id=op_id, keys=keys, first=appended.first_seq)

    with ThreadPoolExecutor(threads) as pool:
        loops = [pool.submit(loop, thread) for thread in range(threads)]
        ended, _ = wait(loops, return_when=FIRST_EXCEPTION)
        traceback.print_exception(ended.pop().exception())
        sys.stderr.flush()
        os._exit(1)


def truncate(acks: AckLog, *, directory: str, keep: int) -> None:
    """Delete all but the last ``keep`` entries, again and again."""
    journal = open_journal(directory)
    while True:
        upto = max(journal.head() - keep, 0)
        acks.intend(upto=upto)
        journal.truncate(upto)
        acks.acknowledge(upto=upto)


def write_then_die(acks: AckLog, *, directory: str, batches: int) -> None:
    """Append some batches and end as a power cut would: no close, no clean-up."""
    journal = open_journal(directory)
    for number in range(batches):
        key = f"{acks.life}-{number}"
        appended = journal.append([change(key)])
        acks.acknowledge(key=key, first=appended.first_seq)
    os.kill(os.getpid(), signal.SIGKILL)


def snapshot_then_die(acks: AckLog, *, directory: str, rounds: int) -> None:
    """Write, make the only snapshot that is kept, cut the journal off behind it, and end as a power cut
    would. FAISS alone."""
    from shadow.writes.snapshots import SnapshotKeeper
    from vectorstore.faiss.store import FaissStore

    journal = open_journal(directory)
    keeper = SnapshotKeeper(Path(directory), journal, kept=1)
    store = FaissStore.empty(dimension=DIMENSION, metric=Metric.L2)
    keeper.make(store)
    for number in range(rounds):
        keys = [f"{acks.life}-{number}-{n}" for n in range(5)]
        appended = journal.append([change(key) for key in keys])
        acks.acknowledge(keys=keys, first=appended.first_seq)
        store.apply(journal.read(store.applied_seq()))
        keeper.make(store)
        journal.truncate(journal.head())
    os.kill(os.getpid(), signal.SIGKILL)

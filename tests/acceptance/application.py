"""An application that lives through a migration: asks, writes, looks up what it wrote, and tells.

Run as a process: `python -m tests.acceptance.application FOLDER`. Queries come from
`FOLDER/queries.npy`. What it met is written to `FOLDER/told-<pid>.json`, replaced whole, until a line
arrives on standard input. It knows nothing of the migration: it opens a store and uses it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import structlog

from shadow import open_router
from vectorstore import Query, Record, VectorStoreError

READ_PAUSE_S = 0.003
WRITE_EVERY = 25
IDS = 20


def main() -> None:
    folder = Path(sys.argv[1])
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    queries = np.load(folder / "queries.npy")
    writes = len(sys.argv) > 2 and sys.argv[2] == "--write"
    router = open_router()
    stopping = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stopping.set()), daemon=True).start()
    answered: Counter[str] = Counter()
    failed: list[str] = []
    unseen: list[str] = []
    written: dict[str, str] = {}
    told = folder / f"told-{os.getpid()}.json"
    number = 0
    while not stopping.is_set():
        vector = queries[number % len(queries)]
        try:
            answered[router.search(Query(vector, 10)).store] += 1
            if writes and number % WRITE_EVERY == 0:
                name = f"app-{os.getpid()}-{(number // WRITE_EVERY) % IDS}"
                text = f"version {number}"
                router.upsert([Record(name, vector, text, {"number": number})])
                written[name] = text
                found = router.get([name])
                if [record.text for record in found] != [text]:
                    unseen.append(name)
        except VectorStoreError as error:
            failed.append(f"{type(error).__name__}: {error}")
        number += 1
        if number % 10 == 0:
            aside = told.with_suffix(".new")
            aside.write_text(
                json.dumps(
                    {
                        "answered": answered,
                        "failed": failed[:20],
                        "unseen": unseen[:20],
                        "written": written,
                        "phase": router.route.phase.value,
                    }
                )
            )
            aside.rename(told)
        time.sleep(READ_PAUSE_S)
    router.close()


if __name__ == "__main__":
    main()

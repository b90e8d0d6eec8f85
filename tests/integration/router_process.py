"""A process of its own with a router: writes, reads its writes back, and says what it follows."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from shadow.config import Settings
from shadow.service import open_router
from tests.fakes.running import QUERY, record_of

__all__ = ["main"]


def main(settings: str, log: str, stop: str) -> None:
    """Run until the file ``stop`` is there; each round is one line of JSON in ``log``."""
    router = open_router(Settings.model_validate(json.loads(settings)))
    number = 0
    with Path(log).open("a") as lines:
        while not Path(stop).exists():
            number += 1
            record = record_of(100 + number % 50, version=number)
            seq = router.upsert([record])
            answer = router.search(QUERY)
            assert answer.applied_seq >= seq, f"{answer.store} at {answer.applied_seq} hides {seq}"
            assert router.get([record.id])[0].seq == seq, "its own write is not there"
            event = {
                "at": time.time(),
                "phase": router.route.phase.value,
                "applied": answer.applied_seq,
            }
            lines.write(json.dumps(event) + "\n")
            lines.flush()
            time.sleep(0.01)
    router.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

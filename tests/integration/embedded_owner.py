"""Owns an embedded server until it is told to end: run as a process of its own by the tests."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from vectorstore.postgres.embedded import EmbeddedServer

if __name__ == "__main__":
    server = EmbeddedServer(Path(sys.argv[1]), settings={"fsync": "off"})
    try:
        print(server.start(), server.pid, flush=True)
        if sys.argv[2:] == ["spin"]:
            while True:
                time.sleep(1)
        sys.stdin.readline()
    except KeyboardInterrupt:
        # The interpreter's own exit stops the server.
        pass

"""A faulty network in a process of its own, so that the faults cost the measured process nothing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from psycopg import conninfo

from tests.plugins.tcp_proxy import TcpProxy

__all__ = ["FaultyNetwork", "faulty_network"]


class FaultyNetwork:
    """Tells the proxy what to do: ``serve``, ``hang`` (accept and say nothing) or ``refuse``."""

    def __init__(self, dsn: str, orders: Connection) -> None:
        self.dsn = dsn
        self._orders = orders

    def order(self, what: str) -> None:
        """Give an order and wait until it is carried out."""
        self._orders.send(what)
        self._orders.recv()


@contextmanager
def faulty_network(dsn: str) -> Iterator[FaultyNetwork]:
    """A proxy in front of the server of ``dsn``."""
    parts = conninfo.conninfo_to_dict(dsn)
    here, there = multiprocessing.Pipe()
    target = (str(parts["host"]), int(str(parts["port"])))
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(target, there), daemon=True
    )
    process.start()
    port = here.recv()
    try:
        yield FaultyNetwork(dsn.replace(f":{parts['port']}/", f":{port}/"), here)
    finally:
        here.send("stop")
        process.join(10.0)


def _serve(target: tuple[str, int], orders: Connection) -> None:
    proxy = TcpProxy(target)
    orders.send(proxy.port)
    while (order := orders.recv()) != "stop":
        proxy.deaf = order == "hang"
        if order == "refuse":
            proxy.refuse()
        else:
            proxy.serve()
        orders.send("done")
    proxy.close()

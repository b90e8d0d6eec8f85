"""A private PostgreSQL server with pgvector, run from a wheel or from the system's programs."""

from __future__ import annotations

import atexit
import fcntl
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import psycopg

from vectorstore.errors import ConfigurationError, StoreUnavailable
from vectorstore.postgres.account import (
    Account,
    place_cluster,
    reachable_binaries,
    server_account,
)
from vectorstore.postgres.binaries import Binaries, find_binaries
from vectorstore.postgres.postmaster import command_of, mark_dead, read_postmaster

__all__ = ["EmbeddedServer"]

_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    # Over TCP alone: a socket's path has at most 107 bytes, and a folder's may have more.
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "max_connections": "100",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
}
_START_S_MAX = 60.0
_STOP_S_MAX = 60


class EmbeddedServer:
    """Runs one cluster in a private directory, shared by every process that opens it.

    The cluster is made on first use and keeps its data. ``start`` returns a DSN over TCP on
    127.0.0.1 with a generated password (kept in the directory, mode 0600). Each owner holds a shared
    lock on the file ``owners`` for as long as it lives; the kernel drops it when the owner is
    killed. The last owner to stop takes the server down. A server whose owners were all killed
    runs on until the next owner adopts it; a server that was killed is started again and recovers.

    As root the server runs as another account, see :mod:`vectorstore.postgres.account`; then
    ``directory`` itself gets mode 0711, and nothing outside it changes. fsync stays on unless
    ``settings`` (PostgreSQL's own names) say otherwise, which is for tests.
    """

    def __init__(self, directory: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._directory = directory.absolute()
        self._settings = {**_SETTINGS, **(settings or {})}
        self._account = Account()
        self._cluster = self._directory
        self._binaries: Binaries | None = None
        self._owner: IO[str] | None = None
        self._owner_pid = 0
        self._dsn = ""

    @property
    def cluster(self) -> Path:
        """Where the data, the log and the password are; differs from the directory as root."""
        return self._cluster

    @property
    def pid(self) -> int | None:
        """Process id of the server as its pid file tells it, or None."""
        postmaster = read_postmaster(self._cluster / "data")
        return postmaster.pid if postmaster else None

    def start(self) -> str:
        """Start, adopt or join the server and return its DSN.

        Raises ConfigurationError if no server programs are found or they do not fit the data, and
        StoreUnavailable, with the end of the server's log, if it does not come up.
        """
        if self._owner is not None and self._dsn:
            return self._dsn
        self.stop()
        self._account = server_account()
        self._cluster = place_cluster(self._directory, self._account)
        with self._exclusively():
            self._binaries = self._choose_binaries()
            self._initialise(self._binaries)
            # Owner first: an interrupt while the server comes up must take it down at exit.
            owner = (self._cluster / "owners").open("w")
            fcntl.flock(owner, fcntl.LOCK_SH)
            self._owner, self._owner_pid = owner, os.getpid()
            atexit.register(self.stop)
            port = self._answering_port() or self._launch(self._binaries)
        self._dsn = self._dsn_at(port)
        return self._dsn

    def stop(self) -> None:
        """Let go of the server; take it down if no other living process uses it. Idempotent."""
        owner = self._owner
        # A forked child inherits this object but not the duty.
        if owner is None or os.getpid() != self._owner_pid:
            return
        self._owner, self._dsn = None, ""
        atexit.unregister(self.stop)
        if not self._cluster.is_dir():
            owner.close()  # Destroyed by somebody, and its server with it.
            return
        with self._exclusively():
            fcntl.flock(owner, fcntl.LOCK_UN)
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            else:
                self._shut_down()
            finally:
                owner.close()

    def destroy(self) -> None:
        """Stop and delete the cluster with all its data. Other owners lose their server."""
        self.stop()
        if read_postmaster(self._cluster / "data"):
            self._shut_down()
        for folder in {self._cluster, self._directory}:
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Starting and stopping happen one owner at a time."""
        with (self._cluster / "starting").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _choose_binaries(self) -> Binaries:
        version = self._cluster / "data" / "PG_VERSION"
        major = int(version.read_text(encoding="ascii")) if version.exists() else None
        if self._binaries and self._binaries.major == major:
            return self._binaries
        return reachable_binaries(find_binaries(major), self._account, self._cluster)

    def _initialise(self, binaries: Binaries) -> None:
        data = self._cluster / "data"
        if data.exists():
            return
        password = secrets.token_urlsafe(24)
        self._write_private("password", password)
        aside = self._cluster / "data.new"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        self._account.own(aside)
        handed_over = self._write_private("password.initdb", password)
        self._account.own(handed_over)
        command = [str(binaries.bin / "initdb"), "-D", str(aside), "-U", "postgres"]
        command += [f"--pwfile={handed_over}", "--auth=scram-sha-256"]
        command += ["--encoding=UTF8", "--locale=C"]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        try:
            made = self._account.run(command, cwd=self._cluster, timeout_s=120)
        finally:
            handed_over.unlink()
        if made.returncode != 0:
            raise StoreUnavailable(f"initdb failed in {aside}: {made.stdout.strip()}")
        # A kill before this line leaves only data.new, which the next start makes again.
        aside.rename(data)

    def _write_private(self, name: str, text: str) -> Path:
        path = self._cluster / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        return path

    def _answering_port(self) -> int | None:
        """The port of a server that already runs on this data, or None after clearing the way."""
        data = self._cluster / "data"
        deadline = time.monotonic() + _START_S_MAX
        while (postmaster := read_postmaster(data)) and postmaster.alive:
            if postmaster.port and self._answers(postmaster.port):
                return postmaster.port
            command = command_of(postmaster.pid)
            if command is not None and str(data) not in command:
                # The pid was given to some other program after a crash.
                mark_dead(data)
                return None
            if time.monotonic() > deadline:
                self._shut_down()
                return None
            time.sleep(0.05)
        return None

    def _answers(self, port: int) -> bool:
        try:
            with psycopg.connect(
                self._dsn_at(port), connect_timeout=2, autocommit=True
            ) as connection:
                shown = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return shown is not None and os.path.realpath(shown[0]) == os.path.realpath(
            self._cluster / "data"
        )

    def _launch(self, binaries: Binaries) -> int:
        log = self._cluster / "log"
        log.unlink(missing_ok=True)
        log.touch(mode=0o600)
        self._account.own(log)
        deadline = time.monotonic() + _START_S_MAX
        while True:
            port = self._free_port()
            options = {**self._settings, "port": str(port)}
            arguments = " ".join(
                shlex.quote(f"--{name}={value}") for name, value in options.items()
            )
            started = self._account.run(
                [
                    *(str(binaries.bin / "pg_ctl"), "start", "-w", "-t", str(int(_START_S_MAX))),
                    *("-D", str(self._cluster / "data"), "-l", str(log), "-o", arguments),
                ],
                cwd=self._cluster,
                timeout_s=2 * _START_S_MAX,
            )
            if started.returncode == 0:
                (self._cluster / "port").write_text(str(port), encoding="ascii")
                return port
            reason = log.read_text(errors="replace")[-2000:]
            # Backends of a killed server hold its memory for a moment; a port may be lost in a race.
            passing = "still in use" in reason or "could not bind" in reason
            if not passing or time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the embedded PostgreSQL in {self._cluster} did not start: "
                    f"{started.stdout.strip()}\n{reason}"
                )
            log.write_text("")
            if "could not bind" in reason:
                (self._cluster / "port").unlink(missing_ok=True)
            time.sleep(0.1)

    def _free_port(self) -> int:
        """The port of the last run if it is free, so that a DSN outlives a restart; else any."""
        with suppress(OSError, ValueError):
            wanted = int((self._cluster / "port").read_text(encoding="ascii"))
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", wanted))
                return wanted
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    def _dsn_at(self, port: int) -> str:
        try:
            password = (self._cluster / "password").read_text(encoding="ascii")
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"the password of the embedded server is gone from {self._cluster}: restore the "
                "file `password`, or delete the directory to start with an empty server"
            ) from error
        return f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"

    def _shut_down(self) -> None:
        if self._binaries is None:
            self._binaries = self._choose_binaries()
        for mode in ("fast", "immediate"):
            with suppress(subprocess.TimeoutExpired):
                stopped = self._account.run(
                    [
                        *(str(self._binaries.bin / "pg_ctl"), "stop", "-w", "-t", str(_STOP_S_MAX)),
                        *("-m", mode, "-D", str(self._cluster / "data")),
                    ],
                    cwd=self._cluster,
                    timeout_s=_STOP_S_MAX + 10,
                )
                if stopped.returncode == 0:
                    return
            if not (postmaster := read_postmaster(self._cluster / "data")) or not postmaster.alive:
                return
